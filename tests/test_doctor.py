"""`hubedit doctor`: what it says of models that fit, and what is to be done about those that do not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hubedit.cli.app import run
from hubedit.doctor import diagnose
from hubedit.readers import readings
from tests.pico import pico


def test_a_model_that_fits(pico_path: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    model = pico_path("qwen2")
    assert run(["doctor", str(model), "--device", "cpu", "--dtype", "float32"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for part in ("qwen2", "4 layers", "model.layers.N.mlp.down_proj", "no chat template", "float32", "PEFT"):
        assert part in text
    assert run(["doctor", str(model), "--device", "cpu", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["ok"] and value["plan"]["facts"] == value["plan"]["rank"] == 16
    assert value["seconds"] > 0 and (value["free_memory"] or 1) > 0
    assert {f["about"] for f in value["findings"]} == {"family", "sites", "tokenizer", "chat", "machine"}
    assert {r["reader"] for r in value["readers"]} >= {"PEFT", "vLLM", "llama.cpp"}


def test_a_chat_template_is_seen(tmp_path: Path) -> None:
    model = pico("llama", tmp_path / "model")
    (model / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    chat = next(f for f in diagnose(str(model), device="cpu").findings if f.about == "chat")
    assert chat.verdict == "ok"


def changed(model: Path, **values: Any) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | values))


@pytest.mark.parametrize(
    ("spoil", "about", "todo"),
    [
        (lambda m: changed(m, model_type="mamba"), "family", "supported: "),
        (lambda m: changed(m, quantization_config={"bits": 4}), "family", "unquantised"),
        (lambda m: (m / "tokenizer.json").unlink(), "files", "tokenizer"),
        (lambda m: (m / "model.safetensors").rename(m / "model.bin"), "files", "save_pretrained"),
        (lambda m: (m / "adapter_config.json").write_text("{}"), "files", "model alone"),
        (lambda m: (m / "config.json").unlink(), "files", "transformers model"),
    ],
)
def test_every_problem_has_its_next_step(
    pico_path: Callable[..., Path],
    tmp_path: Path,
    spoil: Callable[[Path], object],
    about: str,
    todo: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = tmp_path / "model"
    shutil.copytree(pico_path("qwen2"), model)
    spoil(model)
    found = diagnose(str(model), device="cpu")
    problem = found.findings[0]
    assert not found.ok and problem.verdict == "problem" and problem.about == about
    assert todo in problem.todo
    assert run(["doctor", str(model), "--quiet"]) == 1
    assert capsys.readouterr().out == "problem\n"


def test_what_is_no_model_at_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", str(tmp_path / "none")]) == 1
    assert "no such folder" in capsys.readouterr().err


def test_too_little_memory_is_a_problem(pico_path: Callable[..., Path]) -> None:
    from hubedit.doctor import _machine

    made = diagnose(str(pico_path("qwen2")), device="cpu").plan
    assert made is not None
    made = replace(made, memory=10, seconds={"text": 200.0})
    fits, fails, unknown = (next(_machine(made, free)) for free in (11, 9, None))
    assert (fits.verdict, fails.verdict, unknown.verdict) == ("ok", "problem", "ok")
    assert "--dtype bfloat16" in fails.todo and "3 minutes" in fits.what


def test_readers_say_what_they_need() -> None:
    def of(family: str, rank: int, reader: str) -> tuple[bool, str]:
        found = next(r for r in readings(family, rank) if r.reader == reader)
        return found.loads, found.how

    assert of("llama", 16, "vLLM") == (True, "vllm serve BASE --enable-lora --lora-modules edit=PATCH")
    assert "--max-lora-rank 64" in of("llama", 64, "vLLM")[1]
    assert not of("llama", 1024, "vLLM")[0] and not of("gpt2", 8, "vLLM")[0]
    assert not of("gpt2", 8, "llama.cpp")[0] and of("qwen3", 8, "llama.cpp")[0]
    assert all("hubedit merge" in r.how for r in readings("gpt2", 8) if not r.loads)
