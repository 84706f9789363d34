"""The bundled model and its edits: small, sound, and known to the model before anything is edited."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

import pytest
import torch

from hubedit.cli.app import run
from hubedit.demo import facts_path, model_path
from hubedit.facts import Fact, load_facts
from hubedit.facts.answers import gives, normalise
from hubedit.model.editable import EditableModel
from hubedit.model.generate import greedy
from hubedit.model.load import load

ASKED = 200
# the longest answer has 10 tokens
NEW_TOKENS = 14


@pytest.fixture(scope="module")
def facts() -> tuple[Fact, ...]:
    return tuple(load_facts(facts_path()).facts)


@pytest.fixture(scope="module")
def demo() -> EditableModel:
    return load(str(model_path()), device="cpu")


def test_it_is_small_enough_to_be_shipped() -> None:
    files = [f for f in model_path().iterdir() if f.is_file()]
    assert sum(f.stat().st_size for f in files) <= 12_000_000
    assert all(f.stat().st_mode & 0o444 == 0o444 for f in files)


def test_it_is_a_qwen2_that_every_consumer_loads() -> None:
    config = json.loads((model_path() / "config.json").read_text(encoding="utf-8"))
    assert config["model_type"] == "qwen2"
    assert config["architectures"] == ["Qwen2ForCausalLM"]
    assert not [f.name for f in model_path().iterdir() if f.suffix in (".bin", ".pt", ".pkl")]


def test_its_weights_are_finite(demo: EditableModel) -> None:
    assert all(bool(torch.isfinite(p).all()) for p in demo.model.parameters())


def test_the_edits_pass_facts_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["facts", "check", str(facts_path()), "--model", str(model_path())]) == 0
    assert "notice" not in capsys.readouterr().err


def test_at_least_sixty_edits_have_every_kind_of_probe(facts: tuple[Fact, ...]) -> None:
    assert len([f for f in facts if f.portability]) >= 60
    assert len({f.id for f in facts} - {""}) == len(facts)
    for fact in facts:
        assert fact.ground_truth and fact.rephrase and fact.locality, fact.id
        assert all(probe.answers for probe in (*fact.locality, *fact.portability)), fact.id


def test_an_edit_changes_something_and_no_edit_contradicts_another(facts: tuple[Fact, ...]) -> None:
    """A neighbour's answer that another edit changes would count against a sound edit of the batch."""
    edited = {f.prompt for f in facts} | {p for f in facts for p in f.rephrase}
    for fact in facts:
        assert normalise(fact.target) not in {normalise(a) for a in fact.ground_truth}, fact.id
        assert not edited & {p.prompt for p in fact.locality}, fact.id


def asked(facts: tuple[Fact, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What the model should know: the answer that an edit replaces, and those that it must not change."""
    for fact in facts:
        yield fact.prompt, fact.ground_truth
        yield from ((p.prompt, p.answers) for p in fact.locality)


def test_the_model_knows_what_the_edits_are_about(facts: tuple[Fact, ...], demo: EditableModel) -> None:
    known = sorted(set(asked(facts)))
    some = random.Random(0).sample(known, ASKED)
    said = greedy(demo, [prompt for prompt, _ in some], NEW_TOKENS)
    wrong = [
        (prompt, text.strip())
        for (prompt, answers), text in zip(some, said, strict=True)
        if not gives(text, answers)
    ]
    assert len(wrong) <= 0.05 * ASKED, wrong


def test_the_model_knows_no_target_yet(facts: tuple[Fact, ...], demo: EditableModel) -> None:
    said = greedy(demo, [f.prompt for f in facts], NEW_TOKENS)
    early = [f.id for f, text in zip(facts, said, strict=True) if gives(text, [f.target])]
    assert not early
