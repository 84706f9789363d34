"""`hubedit ask`: one model, without and with a patch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hubedit.cli.app import run
from hubedit.linalg import LowRank
from hubedit.model.editable import EditableModel
from hubedit.model.sites import Site
from hubedit.patch import Patch, base_record
from tests.pico import pico

SITE = Site(3, "mlp")
PROMPTS = ["The capital of France is", "Marie Curie was born in"]


@pytest.fixture
def patch(editable: Callable[..., EditableModel], tmp_path: Path) -> Path:
    em = editable("llama")
    d_out, d_in = em.weight(SITE).shape
    factor = LowRank(torch.randn(d_out, 1) * 3, torch.randn(1, d_in) * 3)
    record = {"base": base_record(em, [SITE])}
    return Patch({em.module_name(SITE): factor}, record, str(em.path)).save(tmp_path / "patch")


def test_the_answers_stand_side_by_side(
    editable: Callable[..., EditableModel], patch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    em = editable("llama")
    line = ["ask", str(em.path), *PROMPTS, "--patch", str(patch), "--device", "cpu"]
    assert run([*line, "--json", "--max-new-tokens", "4"]) == 0
    value = json.loads(capsys.readouterr().out)
    ids = torch.tensor([em.tokenizer(PROMPTS[1])["input_ids"]])
    for side, factors in (("without", {}), ("with", Patch.load(patch).by_site(em))):
        with torch.no_grad(), em.with_patch(factors).active() as edited:
            likely = edited(input_ids=ids).logits[0, -1].softmax(-1).topk(5)
        found = value["prompts"][1][side]
        assert [t["probability"] for t in found["top"]] == pytest.approx(likely.values.tolist(), rel=1e-3)
        assert found["top"][0]["token"] == em.tokenizer.decode([int(likely.indices[0])])
    assert value["prompts"][0]["without"] != value["prompts"][0]["with"]

    assert run(line) == 0
    text = capsys.readouterr().out
    assert "without the patch" in text and "with the patch" in text and "%" in text
    assert all(prompt in text for prompt in PROMPTS)

    assert run(["ask", str(em.path), *PROMPTS, "--quiet"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_a_model_alone(editable: Callable[..., EditableModel], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ask", str(editable("llama").path), PROMPTS[0], "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["prompts"][0]) == {"prompt", "without"}


def test_a_space_at_the_end_is_told(
    editable: Callable[..., EditableModel], capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["ask", str(editable("llama").path), "--device", "cpu", "--max-new-tokens", "1"]
    assert run([*line, PROMPTS[0] + " "]) == 0
    assert "ends in a space" in capsys.readouterr().err
    assert run([*line, PROMPTS[0], f"{PROMPTS[0]}\n"]) == 0
    assert "ends in a space" not in capsys.readouterr().err


def test_what_does_not_fit(
    patch: Path,
    editable: Callable[..., EditableModel],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = pico("llama", tmp_path / "other", seed=1)
    assert run(["ask", str(other), PROMPTS[0], "--patch", str(patch)]) == 1
    assert "is not the model this patch was made for" in capsys.readouterr().err
    smaller = pico("gpt2", tmp_path / "gpt2")
    assert run(["ask", str(smaller), PROMPTS[0], "--patch", str(patch)]) == 1
    assert "no editable module" in capsys.readouterr().err
    assert run(["ask", str(other), PROMPTS[0], "--patch", str(tmp_path / "none")]) == 1
    assert "no patch folder" in capsys.readouterr().err
    assert run(["ask", str(other), " "]) == 2
    assert run(["ask", str(other)]) == 2
    assert run(["ask", str(tmp_path / "none"), "x"]) == 1
    assert "Traceback" not in capsys.readouterr().err
