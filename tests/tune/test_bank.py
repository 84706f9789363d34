"""The built-in bank is sound, and a user's facts become candidates."""

from __future__ import annotations

from collections import Counter

import pytest

from hubedit.errors import FactsError
from hubedit.facts import Fact, Probe
from hubedit.tune.bank import bank, candidates


def test_every_fact_of_the_bank_can_be_asked_for() -> None:
    facts = bank()
    assert len(facts) >= 300
    assert len({(c.relation, c.subject) for c in facts}) == len(facts)
    for c in facts:
        assert len(c.prompts) == len(set(c.prompts)) == 3
        for prompt in c.prompts:
            assert c.subject in prompt and "{}" not in prompt and prompt == prompt.strip()
            assert prompt[0].isupper() or not prompt[0].isalpha()
            assert c.answers[0] not in prompt.removesuffix("the") or c.answers[0] in c.subject
        assert all(answer == answer.strip() != "" for answer in c.answers)


def test_every_relation_has_other_answers_and_neighbours() -> None:
    facts = bank()
    for relation, count in Counter(c.relation for c in facts).items():
        answers = {c.answers[0] for c in facts if c.relation == relation}
        assert count >= 20 and len(answers) >= 5, relation
    several = Counter(c.subject for c in facts)
    assert sum(n > 1 for n in several.values()) > 100, "what else is said of a subject tests locality"


def test_an_article_is_no_part_of_the_subject() -> None:
    tower = next(c for c in bank() if c.subject == "Eiffel Tower" and c.relation == "location")
    assert tower.prompts[0] == "The Eiffel Tower is located in the city of"
    assert "The city where the Eiffel Tower stands is" in tower.prompts
    london = next(c for c in bank() if c.subject == "London Eye" or c.answers[0] == "the United Kingdom")
    assert london.answers == ("the United Kingdom", "United Kingdom")


def test_a_users_facts() -> None:
    stays = (Probe("Rome is in", ("Italy",)),)
    given = [
        Fact("The capital of France is", "France", "Rome", ground_truth=("Paris",), locality=stays),
        Fact("The capital of Italy is", "Italy", "Rome", ground_truth=("Rome",), rephrase=("Italy's is",)),
        Fact("The capital of Spain is", "Spain", "Oslo"),
    ]
    found = candidates(given)
    assert [c.subject for c in found] == ["France", "Italy"]
    assert found[0].target == "Rome" and found[0].locality == stays
    # a true target is no edit
    assert found[1].target == "" and found[1].prompts == ("The capital of Italy is", "Italy's is")
    assert {c.relation for c in found} == {"The capital of {} is"}
    with pytest.raises(FactsError, match="what is true now"):
        candidates(given[2:])
