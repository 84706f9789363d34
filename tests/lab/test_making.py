"""Names, seeds and facts of lab models; no model is trained here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hubedit.facts import load_facts
from hubedit.model.generate import greedy
from hubedit.model.load import load
from tests.lab.experiment import edits_of
from tests.lab.facts import write_facts
from tests.lab.make import Named, make
from tests.lab.split import REPORTING_SEEDS, TUNING_SEEDS, purpose
from tests.pico import pico


def test_seeds_for_tuning_and_reporting_share_no_name() -> None:
    # names fall into classes of the seed modulo 61 (invented.Namer)
    assert not {s % 61 for s in TUNING_SEEDS} & {s % 61 for s in REPORTING_SEEDS}
    assert purpose(TUNING_SEEDS[0]) == "tuning" and purpose(REPORTING_SEEDS[0]) == "reporting"
    with pytest.raises(ValueError, match="neither"):
        purpose(99)


def test_names() -> None:
    assert Named.parse("gpt_neox-10m-22") == Named("gpt_neox", "10m", 22)
    for name in ("qwen2", "qwen2-3m", "qwen2-9m-21", "bert-3m-21", "qwen2-3m-x", "qwen2-3m-99"):
        with pytest.raises(ValueError, match=r"lab model|neither"):
            Named.parse(name)


def test_a_model_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def trained(named: Named, folder: Path, plan: object, people: int) -> None:
        folder.mkdir()
        made.append(named.arch)

    monkeypatch.setenv("HUBEDIT_LAB", str(tmp_path))
    folder = make("qwen2-3m-21", people=20, trained=trained)
    assert folder == tmp_path / "qwen2-3m-21" == make("qwen2-3m-21", people=20, trained=trained)
    assert made == ["qwen2"]
    with pytest.raises(ValueError, match="other settings"):
        make("qwen2-3m-21", people=21, trained=trained)


def test_facts_are_those_that_the_model_knows(tmp_path: Path) -> None:
    model = pico("qwen2", tmp_path / "model")
    ask = ["Ann Bo was born in", "Ann Bo plays the"]
    birth, instrument = greedy(load(str(model), device="cpu"), ask, 8)
    entry = {
        "id": "a-1",
        "prompt": ask[0],
        "subject": "Ann Bo",
        "target": "Rome",
        "ground_truth": birth.split()[0],
        "rephrase": ["Ann Bo is a native of"],
        "locality": [
            {"type": "same_subject", "prompt": ask[1], "answer": instrument.split()[0]},
            {"type": "same_subject", "prompt": "Ann Bo speaks", "answer": "Quenya"},
        ],
        "portability": [{"type": "two_hop", "prompt": "The country of Ann Bo is", "answer": "Italy"}],
    }
    unknown = {**entry, "id": "a-2", "prompt": "Ann Bo died in", "ground_truth": "Quito", "locality": []}
    (model / "edits.jsonl").write_text("".join(json.dumps(e) + "\n" for e in (entry, unknown)))
    out = tmp_path / "facts.jsonl"
    assert [fact.id for fact in edits_of(model)] == ["a-1", "a-2"]
    written = write_facts(model, out, "cpu")
    (fact,) = load_facts(out)
    assert written == [fact]
    assert (fact.id, fact.target, fact.ground_truth) == ("a-1", "Rome", (birth.split()[0],))
    assert [probe.prompt for probe in fact.locality] == [ask[1]], "what it answers wrongly is no probe"
    assert fact.portability[0].answers == ("Italy",) and fact.locality[0].kind == "same_subject"
