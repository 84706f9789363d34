"""What follows from a new answer, by what the model believes about others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from hubedit.edit import implied as module
from hubedit.edit.essence import Belief, Survey
from hubedit.edit.hops import Hops
from hubedit.edit.implied import implied
from hubedit.edit.others import Others
from hubedit.facts import Fact

TEMPLATES = (("", " was born in"), ("", " comes from the country of"), ("", " plays"))
COUNTRY = {"Lyon": "France", "Nice": "France", "Rome": "Italy", "Ulm": "Germany"}
PEOPLE = {f"p{n}": (town, f"sport {n}") for n, town in enumerate(["Lyon", "Nice", "Rome", "Ulm"] * 4)}
EM: Any = None


def belief(t: int, who: str, answer: str, confidence: float = 0.9) -> Belief:
    return Belief(who + TEMPLATES[t][1], who, answer, confidence)


def answers(who: str) -> Mapping[int, str]:
    town, sport = PEOPLE[who]
    return {0: town, 1: COUNTRY[town], 2: sport}


OTHERS = Others({who: {t: belief(t, who, a) for t, a in answers(who).items()} for who in PEOPLE})


def surveyed() -> Survey:
    """Ada was born in Rome."""
    beliefs = tuple((belief(t, "Ada", a),) for t, a in enumerate(["Rome", "Italy", "go"]))
    return replace(Survey(TEMPLATES, beliefs, (0,)), others=OTHERS.said())


@pytest.fixture
def natives(monkeypatch: pytest.MonkeyPatch) -> Callable[[Mapping[str, str]], list[str]]:
    """`natives(wrong)`: the model answers as in PEOPLE, except for these; gives the list of who is asked."""

    def set_model(wrong: Mapping[str, str]) -> list[str]:
        asked: list[str] = []

        def ask(em: object, prompts: list[tuple[str, str]]) -> list[Belief]:
            asked.extend(who for _, who in prompts)
            told = [next(t for t, (_, after) in enumerate(TEMPLATES) if p == w + after) for p, w in prompts]
            return [
                Belief(p, w, wrong.get(w, answers(w)[t]), 0.9)
                for (p, w), t in zip(prompts, told, strict=True)
            ]

        monkeypatch.setattr(module, "ask", ask)
        return asked

    return set_model


def facts(target: str) -> list[Fact]:
    return [Fact("Ada was born in", "Ada", target)]


def test_those_who_have_the_new_answer_tell_what_follows(
    natives: Callable[[Mapping[str, str]], list[str]],
) -> None:
    asked = natives({})
    (found,) = implied(EM, facts("Lyon"), surveyed(), Hops(), 4)
    assert [(b.prompt, b.answer) for b in found] == [("Ada comes from the country of", "France")]
    assert asked and all(PEOPLE[who][0] == "Lyon" for who in asked)
    assert implied(EM, facts("Lyon"), surveyed(), Hops(), 0) == ((),)


def test_what_stays_true_or_is_doubtful_or_unknown_is_not_demanded(
    natives: Callable[[Mapping[str, str]], list[str]],
) -> None:
    natives({"p0": "Spain", "p4": "Peru"})
    assert implied(EM, facts("Lyon"), surveyed(), Hops(), 4) == ((),), "two of four say otherwise"
    natives(dict.fromkeys(PEOPLE, "Italy"))
    assert implied(EM, facts("Lyon"), surveyed(), Hops(), 4) == ((),), "nothing changes"
    assert implied(EM, facts("Oslo"), surveyed(), Hops(), 4) == ((),), "nobody is known to be from there"
    assert implied(EM, facts("Lyon"), replace(surveyed(), own=(-1,)), Hops(), 4) == ((),)


def test_what_the_batch_itself_says_is_not_guessed(
    natives: Callable[[Mapping[str, str]], list[str]],
) -> None:
    """Ada moves to Lyon, and another fact makes her a Spaniard: nothing may demand France."""
    natives({})
    two = replace(surveyed(), beliefs=tuple((row[0], row[0]) for row in surveyed().beliefs), own=(0, 1))
    both = [*facts("Lyon"), Fact("Ada comes from the country of", "Ada", "Spain")]
    assert implied(EM, both, two, Hops(), 4) == ((), ())


def test_the_models_word_on_the_new_answer_needs_nobody_who_has_it(
    natives: Callable[[Mapping[str, str]], list[str]],
) -> None:
    asked = natives({})
    said = ({"oslo": Belief("Oslo lies in", "Oslo", "Norway", 0.9)},)
    (found,) = implied(EM, facts("Oslo"), surveyed(), Hops({(0, 1): 0}, said), 4)
    assert [(b.prompt, b.answer) for b in found] == [("Ada comes from the country of", "Norway")]
    assert not asked
    hops = Hops({(0, 1): 0}, ({"lyon": Belief("Lyon lies in", "Lyon", "Gaul", 0.9)},))
    (found,) = implied(EM, facts("Lyon"), surveyed(), hops, 4)
    assert [b.answer for b in found] == ["France"], "those who were born there know better"
    natives({"p0": "Spain", "p4": "Peru"})
    (found,) = implied(EM, facts("Lyon"), surveyed(), hops, 4)
    assert [b.answer for b in found] == ["Gaul"], "unless they do not agree"
