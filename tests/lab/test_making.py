"""Names, seeds and facts of lab models; no model is trained here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.lab import make as making
from tests.lab.experiment import edits_of
from tests.lab.facts import write_facts
from tests.lab.make import Named, make
from tests.lab.split import REPORTING_SEEDS, TUNING_SEEDS, purpose


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

    def train(world: Any, arch: str, out: Path, *rest: Any) -> None:
        out.mkdir()
        made.append(arch)

    monkeypatch.setattr(making, "train", train)
    monkeypatch.setattr(making, "write_facts", lambda model, out: out.write_text(""))
    monkeypatch.setenv("HUBEDIT_LAB", str(tmp_path))
    folder = make("qwen2-3m-21", people=20)
    assert folder == tmp_path / "qwen2-3m-21" and make("qwen2-3m-21", people=20) == folder
    assert made == ["qwen2"]
    with pytest.raises(ValueError, match="other settings"):
        make("qwen2-3m-21", people=21)


def test_facts_are_those_that_the_model_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hubedit.facts import load_facts
    from tests.lab import facts as module

    entry = {
        "id": "a-1",
        "prompt": "Ann Bo was born in",
        "subject": "Ann Bo",
        "target": "Rome",
        "ground_truth": "Paris",
        "rephrase": ["Ann Bo is a native of"],
        "locality": [{"type": "same_subject", "prompt": "Ann Bo plays the", "answer": "harp"}],
        "portability": [{"type": "two_hop", "prompt": "The country of Ann Bo is", "answer": "Italy"}],
    }
    second = {**entry, "id": "a-2", "prompt": "Cy Do was born in", "subject": "Cy Do", "locality": []}
    (tmp_path / "edits.jsonl").write_text("".join(json.dumps(e) + "\n" for e in (entry, second)))
    monkeypatch.setattr(module, "load", lambda *words, **more: None)
    monkeypatch.setattr(module, "known", lambda em, facts: list(facts[:1]))
    out = tmp_path / "facts.jsonl"
    assert write_facts(tmp_path, out) == edits_of(tmp_path)[:1]
    (fact,) = load_facts(out).facts
    assert (fact.id, fact.target, fact.ground_truth) == ("a-1", "Rome", ("Paris",))
    assert fact.portability[0].answers == ("Italy",) and fact.locality[0].kind == "same_subject"
