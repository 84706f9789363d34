"""The second hop: what the model says about answers, and which phrasings about the subjects follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from hubedit.edit import hops as module
from hubedit.edit.essence import Belief, Survey
from hubedit.edit.hops import Hops, second_hops
from hubedit.edit.templates import Template
from hubedit.facts import Fact

EM: Any = SimpleNamespace(tokenizer=None)
TEMPLATES = (("", " was born in"), ("", " pays in"), ("", " plays"))
MONEY = {"Paris": "euro", "London": "pound", "Tokyo": "yen", "Delhi": "rupee", "Oslo": "krone"}
HOMES = {"Ada": "Paris", "Bea": "London", "Cyd": "Tokyo", "Dan": "Delhi"}
GAMES = {"Ada": "go", "Bea": "chess", "Cyd": "polo", "Dan": "golf"}
ABOUT = (Template("", " trades in", ("Paris", "London", "Tokyo")), Template("", " is dear to", ("Oslo",)))


def surveyed() -> Survey:
    """Everybody has a home of their own, so that nobody agrees with anybody on it."""
    answers = (HOMES, {who: MONEY[town] for who, town in HOMES.items()}, GAMES)
    return Survey(
        TEMPLATES,
        tuple(
            tuple(Belief(who + TEMPLATES[t][1], who, said[who], 0.9) for who in HOMES)
            for t, said in enumerate(answers)
        ),
        (0, -1, -1, -1),
    )


FACTS = [Fact("Ada was born in", "Ada", " Oslo"), *(Fact(f"{w} is", w, " x") for w in ("Bea", "Cyd", "Dan"))]


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A model that knows the towns' money, and says it of every one; gives the list of what is asked."""
    asked: list[str] = []

    def ask(em: object, prompts: Sequence[tuple[str, str]]) -> list[Belief]:
        asked.extend(prompt for prompt, _ in prompts)
        return [
            Belief(p, a, MONEY.get(a, "") if p.endswith(ABOUT[0].after) else "me", 0.9) for p, a in prompts
        ]

    monkeypatch.setattr(module, "tell", lambda em, answers, seed, n: {a: [""] for a in answers})
    monkeypatch.setattr(module, "mine", lambda em, heard, most: ABOUT if "" in heard else ())
    monkeypatch.setattr(module, "suited", lambda em, ts, answers: tuple((True,) * len(answers) for _ in ts))
    monkeypatch.setattr(module, "ask", ask)
    monkeypatch.setattr(module, "encode", lambda tokenizer, text: SimpleNamespace(ids=text.split()))
    return asked


def test_what_the_model_says_of_the_answer_is_what_follows(model: list[str]) -> None:
    found = second_hops(EM, FACTS, surveyed(), [], 0)
    assert found.bridge == {(0, 1): 0}, "the money follows from the home, the game does not"
    assert found.beyond(0, 1, " Oslo") == "krone", "though nobody lives there"
    assert found.beyond(0, 1, "Rome") == found.beyond(0, 2, "Oslo") == ""
    assert "Oslo trades in" in model and "Paris trades in" in model
    survey = replace(surveyed(), bridged=frozenset(found.bridge))
    assert survey.follows(0, 1) and not survey.follows(0, 2) and not survey.follows(1, 0)
    assert 1 not in survey.unrelated(0) and 2 in survey.unrelated(0)


def test_people_who_share_an_answer_and_differ_beyond_it_deny_a_hop(model: list[str]) -> None:
    """Companies sit in capitals mostly; where they sit does not follow from their country."""
    many = {f"p{n}": {0: "Paris", 1: MONEY["Paris"] if n < 2 else f"coin {n}"} for n in range(5)}
    survey = replace(surveyed(), others=many)
    assert second_hops(EM, FACTS, survey, [], 0).bridge == {}


def test_others_help_to_see_a_hop(model: list[str]) -> None:
    one = replace(surveyed(), beliefs=tuple(row[:1] for row in surveyed().beliefs), own=(0,))
    assert second_hops(EM, FACTS[:1], one, [], 0).bridge == {}
    around = {who: {0: town, 1: MONEY[town]} for who, town in HOMES.items()}
    assert (0, 1) in second_hops(EM, FACTS[:1], replace(one, others=around), [], 0).bridge


def test_without_an_edited_relation_nothing_is_asked(model: list[str]) -> None:
    nothing = replace(surveyed(), own=(-1,) * 4)
    assert second_hops(EM, FACTS, nothing, [], 0) == Hops()
    assert not model


def test_the_order_of_facts_does_not_matter_nor_how_many_there_are(model: list[str]) -> None:
    many = [Fact("Ada was born in", "Ada", f" town {n}") for n in range(100)]
    answers = ("Paris", "euro", "go")
    said = [Belief(f"Ada{t[1]}", "Ada", a, 0.9) for t, a in zip(TEMPLATES, answers, strict=True)]
    survey = replace(surveyed(), beliefs=tuple((b,) * 100 for b in said), own=(0,) * 100)
    survey = replace(survey, others={who: {0: town, 1: MONEY[town]} for who, town in HOMES.items()})
    found = second_hops(EM, many, survey, [], 0)
    asked = list(model)
    assert found.bridge == {(0, 1): 0} and "Town 99 trades in" in asked
    model.clear()
    assert second_hops(EM, many[::-1], survey, [], 0) == found and model == asked


def test_a_target_that_is_a_sentence_is_no_name(model: list[str]) -> None:
    long = [Fact("Ada was born in", "Ada", " " + "very " * 40 + "far away"), *FACTS[1:]]
    assert second_hops(EM, long, surveyed(), [], 0).bridge == {(0, 1): 0}
    assert not any("far away" in prompt for prompt in model)


def test_a_sentence_begins_with_a_capital_and_words_before_an_answer_are_read_in_the_text(
    model: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    behind = Template("People in ", " trade in", ("the Hague",))
    monkeypatch.setattr(module, "mine", lambda em, heard, most: ABOUT if "" in heard else (behind,))
    homes = {who: {0: f"the {town}"} for who, town in HOMES.items()}
    survey = replace(surveyed(), beliefs=tuple(row[:0] for row in surveyed().beliefs), own=(), others=homes)
    assert second_hops(EM, [], survey, [], 0) == Hops(), "nothing is edited"
    survey = replace(surveyed(), others=homes | {who: {0: f"the {t}"} for who, t in HOMES.items()})
    row = tuple(Belief(b.prompt, b.subject, f"the {b.answer}", 0.9) for b in surveyed().beliefs[0])
    second_hops(EM, FACTS, replace(survey, beliefs=(row, *surveyed().beliefs[1:])), [], 0)
    assert "The Paris trades in" in model and "People in the Paris trade in" in model
