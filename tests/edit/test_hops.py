"""The second hop: what the model says about answers, and which phrasings about the subjects follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from hubedit.edit import hops as module
from hubedit.edit.essence import Belief, Survey
from hubedit.edit.hops import Hops, second_hops
from hubedit.edit.others import Others
from hubedit.edit.templates import Template
from hubedit.facts import Fact
from hubedit.model.editable import EditableModel

EM: EditableModel = None  # type: ignore[assignment]
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
    monkeypatch.setattr(module, "fitting", lambda em, ts, answers: tuple((True,) * len(answers) for _ in ts))
    monkeypatch.setattr(module, "ask", ask)
    return asked


def test_what_the_model_says_of_the_answer_is_what_follows(model: list[str]) -> None:
    found = second_hops(EM, FACTS, surveyed(), Others({}), [], 0)
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
    around = Others({w: {t: Belief(w, w, a, 0.9) for t, a in said.items()} for w, said in many.items()})
    survey = replace(surveyed(), others=around.answers())
    assert second_hops(EM, FACTS, survey, around, [], 0).bridge == {}


def test_others_help_to_see_a_hop(model: list[str]) -> None:
    one = replace(surveyed(), beliefs=tuple(row[:1] for row in surveyed().beliefs), own=(0,))
    assert second_hops(EM, FACTS[:1], one, Others({}), [], 0).bridge == {}
    around = Others({
        who: {t: Belief(who, who, a, 0.9) for t, a in {0: HOMES[who], 1: MONEY[HOMES[who]]}.items()}
        for who in HOMES
    })  # fmt: skip
    assert (0, 1) in second_hops(EM, FACTS[:1], one, around, [], 0).bridge


def test_without_an_edited_relation_nothing_is_asked(model: list[str]) -> None:
    nothing = replace(surveyed(), own=(-1,) * 4)
    assert second_hops(EM, FACTS, nothing, Others({}), [], 0) == Hops()
    assert not model
