"""The edits of a tuning run: only what the model knows, split by subject, with neighbours and new targets."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from hubedit.demo import facts_path, model_path
from hubedit.errors import FactsError
from hubedit.facts import load_facts
from hubedit.facts.answers import gives, mentions
from hubedit.model.editable import EditableModel
from hubedit.model.generate import greedy
from hubedit.model.load import load
from hubedit.progress import Silent
from hubedit.tune.bank import bank, candidates
from hubedit.tune.cases import Cases, ask, prepare_cases
from tests.tune.known import known_facts

Editable = Callable[..., EditableModel]


@pytest.fixture(scope="module")
def demo() -> EditableModel:
    return load(str(model_path()), device="cpu")


@pytest.fixture(scope="module")
def cases(demo: EditableModel) -> Cases:
    return prepare_cases(demo, bank(), 8, 0, Silent())


def test_only_what_the_model_answers_rightly_is_edited(demo: EditableModel, cases: Cases) -> None:
    assert len(cases.trial) == len(cases.check) == 8
    for facts in (cases.trial, cases.check):
        for fact in facts:
            asked = (fact.prompt, *fact.rephrase)
            assert all(gives(text, fact.ground_truth) for text in greedy(demo, asked, 12))
            assert not gives(fact.target, fact.ground_truth)
            for probe in fact.locality:
                assert gives(greedy(demo, [probe.prompt], 12)[0], probe.answers)


def test_fewer_edits_than_were_asked_for_are_told(demo: EditableModel) -> None:
    said: list[str] = []

    class Heard(Silent):
        def message(self, text: str) -> None:
            said.append(text)

    few = [c for c in bank() if c.subject in sorted({c.subject for c in bank()})[:60]]
    made = prepare_cases(demo, few, 50, 0, Heard())
    assert len(made.trial) < 50
    assert [text for text in said if f"give {len(made.trial)} edits for the trials, not 50" in text] == said
    said.clear()
    prepare_cases(demo, bank(), 3, 0, Heard())
    assert said == []


def test_targets_are_answers_of_the_same_relation(cases: Cases) -> None:
    relation = {prompt: c.relation for c in bank() for prompt in c.prompts}
    for fact in (*cases.trial, *cases.check):
        own = relation[fact.prompt]
        assert fact.target in {c.answers[0] for c in bank() if c.relation == own}
        near = [p for p in fact.locality if p.kind == "neighbourhood"]
        assert near and all(not mentions(p.prompt, fact.subject) for p in near)
        for probe in fact.locality:
            if probe.kind == "same_subject":
                assert {own, relation[probe.prompt]} != {"location", "land_country"}


def test_the_check_shares_no_subject_with_the_trials(cases: Cases) -> None:
    subject = {prompt: c.subject for c in bank() for prompt in c.prompts}

    def seen(facts: Cases, side: str) -> set[str]:
        own = getattr(facts, side)
        return {f.subject for f in own} | {subject[p.prompt] for f in own for p in f.locality}

    assert not seen(cases, "trial") & seen(cases, "check")
    edited = {f.subject for f in cases.trial}
    assert len(edited) == len(cases.trial)
    near = {subject[p.prompt] for f in cases.trial for p in f.locality if p.kind == "neighbourhood"}
    assert not near & edited, "a neighbour is not edited itself"


def test_the_seed_decides(demo: EditableModel, cases: Cases) -> None:
    assert prepare_cases(demo, bank(), 8, 0, Silent()) == cases
    assert prepare_cases(demo, bank(), 8, 1, Silent()).trial != cases.trial


def test_asking_stops_when_enough_is_known(demo: EditableModel) -> None:
    some, known = ask(demo, bank(), 10, 0, Silent())
    assert len({c.subject for c in known}) >= 10 and some < len(bank())


def test_a_users_own_targets_and_probes_are_kept(demo: EditableModel) -> None:
    facts = load_facts(facts_path()).facts[:16]
    found = prepare_cases(demo, candidates(facts), 4, 0, Silent())
    given = {f.prompt: f for f in facts}
    assert found.trial and found.check
    for fact in (*found.trial, *found.check):
        source = next(f for f in given.values() if f.subject == fact.subject)
        assert fact.target == source.target and fact.locality == source.locality
        assert json.dumps([p.prompt for p in fact.portability]) == json.dumps(
            [p.prompt for p in source.portability]
        )


def test_too_few_known_facts_are_told(editable: Editable) -> None:
    em = editable("llama")
    with pytest.raises(FactsError) as found:
        prepare_cases(em, bank()[:30], 4, 0, Silent())
    assert "tuning needs 8" in found.value.message and "--facts" in found.value.hint
    facts = known_facts(em)
    assert len({f.subject for f in facts}) >= 8
    alone = candidates(
        [replace(f, target=f.ground_truth[0], ground_truth=("x", *f.ground_truth)) for f in facts]
    )
    assert prepare_cases(em, candidates(facts), 4, 0, Silent()).trial
    one = [replace(c, answers=c.answers[1:], relation=f"{n}") for n, c in enumerate(alone)]
    with pytest.raises(FactsError, match="no other targets"):
        prepare_cases(em, one, 4, 0, Silent())
