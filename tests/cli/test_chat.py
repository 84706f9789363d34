"""`--chat` from edit to answer: the record, the report, and what other readers of the patch say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

from hubedit.cli.app import run
from hubedit.patch import Patch
from tests.cli.test_apply import CORPUS, facts_file
from tests.model.test_chat import LINES
from tests.pico import pico

RECORDS: list[dict[str, Any]] = [
    {
        "prompt": "The capital of France is",
        "subject": "France",
        "target": "Rome",
        "ground_truth": "Paris",
        "rephrase": ["France's capital is"],
        "locality": [{"prompt": "The capital of Japan is", "answer": "Tokyo"}],
    },
    {"prompt": "Who founded Apple?", "target": "Einstein"},
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = pico("llama", tmp_path_factory.mktemp("chat") / "tiny-instruct", "metaspace_bos")
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = LINES
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def patch(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("patch")
    words = ["apply", str(facts_file(folder / "facts.jsonl", RECORDS)), "--model", str(model), "--layers"]
    words += ["1-2", "--corpus", CORPUS, "--tokens", "200", "--device", "cpu", "--system", "Be brief."]
    assert run([*words, "--out", str(folder / "patch"), "--cache", str(folder / "cache")]) == 0
    return folder / "patch"


def test_the_patch_says_how_it_was_asked(patch: Path) -> None:
    made = Patch.load(patch)
    assert made.record["chat"] == {"system": "Be brief."}
    assert [fact.subject for fact in made.facts] == ["France", "Apple"]
    forms = json.loads((patch / "report.json").read_text())["forms"]
    for side in ("before", "in_context", "after"):
        assert set(forms[side]) == {"bare", "question", "instruction", "chat"}
        assert all("exact" in own for own in forms[side].values())
    assert forms["n"]["bare"]["success"] == 2
    assert "The same facts asked in other ways" in (patch / "README.md").read_text()


def test_reading_follows_the_patch(
    model: Path, patch: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["eval", str(model), "--patch", str(patch), "--text", "none", "--fluency", "0", "--device", "cpu"]
    assert run([*words, "--json", "--cache", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert "chat template: used (as the patch was made); system prompt 'Be brief.'" in said.err
    report = json.loads(said.out)
    assert set(report["forms"]["after"]) == {"bare", "question", "instruction", "chat"}
    assert report["forms"]["n"]["chat"]["neighbourhood"] == 1
    assert set(report["automatic"]["after"]) >= {"negation", "yes", "unrelated"}
    # the model is its own judge here
    judged = [*words, "--forms", "bare,chat", "--no-automatic", "--judge", str(model), "--json"]
    assert run([*judged, "--cache", str(tmp_path)]) == 0
    judged_report = json.loads(capsys.readouterr().out)
    assert judged_report["evaluated"]["judge"] == "tiny-instruct"
    assert judged_report["forms"]["n"]["chat"]["judged"] == 2
    for side in ("before", "in_context", "after"):
        for own in judged_report["forms"][side].values():
            assert list(own)[:3] == ["success", "exact", "judged"] and 0 <= own["judged"] <= 1
    less = [*words, "--chat", "off", "--forms", "bare", "--no-automatic", "--json", "--cache", str(tmp_path)]
    assert run(less) == 0
    said = capsys.readouterr()
    assert "chat template: not used (--chat off)" in said.err
    report = json.loads(said.out)
    assert set(report["forms"]["after"]) == {"bare"} and "automatic" not in report
    assert all("judged" not in own for own in report["forms"]["after"].values())
    for wrong in (
        ["--forms", "spoken"],
        ["--forms", "none", "--judge", str(model)],
        ["--chat", "off", "--system", "Be brief."],
    ):
        assert run([*words, *wrong]) == 2


def test_check_asks_as_the_patch_was_made(
    model: Path, patch: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run(["check", str(patch), "--model", str(model), "--device", "cpu", "--json"]) == 0
    said = capsys.readouterr()
    assert "chat template: used (as the patch was made); system prompt 'Be brief.'" in said.err
    found = json.loads(said.out)
    measured = json.loads((patch / "report.json").read_text())["metrics"]["success"]
    assert found["hold"] == round(measured * found["facts"])
    # what is mended is what was found to fail, asked in the same way
    line = ["apply", "--on", str(patch), "--again", "--model", str(model), "--device", "cpu", "--layers"]
    line += ["1-2", "--corpus", CORPUS, "--tokens", "200", "--cache", str(tmp_path / "cache")]
    assert run([*line, "--out", str(tmp_path / "mended")]) == 0
    assert "system prompt 'Be brief.'" in capsys.readouterr().err
    # and what is made again would be asked so too
    line = ["apply", "--from", str(patch), "--corpus", CORPUS, "--model", str(model), "--dry-run"]
    assert run([*line, "--device", "cpu", "--out", str(tmp_path / "again")]) == 0
    assert "system prompt 'Be brief.'" in capsys.readouterr().err


@torch.no_grad()
def test_pipelines_with_messages_give_what_ask_gives(
    model: Path, patch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    question = "The capital of France is what?"
    words = ["ask", str(model), question, "--patch", str(patch), "--device", "cpu", "--max-new-tokens", "8"]
    assert run([*words, "--json"]) == 0
    sides = json.loads(capsys.readouterr().out)["prompts"][0]
    loader: Any = AutoModelForCausalLM
    base = loader.from_pretrained(model, dtype=torch.float32)
    make: Any = pipeline
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": question}]

    def answer(served: Any) -> str:
        pipe = make("text-generation", model=served, tokenizer=AutoTokenizer.from_pretrained(model))
        found: Sequence[Any] = pipe(messages, max_new_tokens=8, do_sample=False)
        return str(found[0]["generated_text"][-1]["content"]).strip()

    assert answer(base) == sides["without"]["text"].strip()
    edited = PeftModel.from_pretrained(base, str(patch))
    assert answer(edited) == sides["with"]["text"].strip()
