"""Paraphrases from the model's own sentences: what counts as one, and that others confirm it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from hubedit.edit import told as module
from hubedit.edit.essence import Belief, Survey
from hubedit.edit.told import paraphrases
from hubedit.facts import Fact
from hubedit.model.editable import EditableModel

Editable = Callable[..., EditableModel]

PEOPLE = {"Ada": "London", "Bea": "Paris", "Cyd": "Rome"}
FACTS = [Fact(f"{who} was born in", who, "Oslo") for who in PEOPLE]
SAID = {
    " comes from": "{town}.",
    " is a native of": "{town}, as is known",
    " likes": "Paris.",
}


def surveyed() -> Survey:
    beliefs = tuple(Belief(f"{who} was born in", who, town, 0.9) for who, town in PEOPLE.items())
    return Survey((("", " was born in"),), (beliefs,), (0, 0, 0))


@pytest.fixture
def speaking(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, list[str]]], None]:
    """`speaking(texts)`: what the model tells of each subject; it answers prompts as in SAID."""

    def greedy(em: object, prompts: Sequence[str], tokens: int) -> list[str]:
        return [
            next((f" {t.format(town=PEOPLE[p[:3]])}" for words, t in SAID.items() if p[3:] == words), " x")
            for p in prompts
        ]

    def set_texts(texts: dict[str, list[str]]) -> None:
        monkeypatch.setattr(
            module, "_tell", lambda em, subjects, seed: {s: texts.get(s, []) for s in subjects}
        )

    monkeypatch.setattr(module, "greedy", greedy)
    return set_texts


def test_a_phrasing_told_of_one_serves_all_when_they_confirm_it(
    editable: Editable, speaking: Callable[[dict[str, list[str]]], None]
) -> None:
    speaking({"Ada": [" comes from London"], "Cyd": [" is a native of Rome", " comes from Rome"]})
    found = paraphrases(editable(), FACTS, surveyed(), 4, 0)
    assert found == ((("", " comes from"), ("", " is a native of")),) * 3
    assert paraphrases(editable(), FACTS, surveyed(), 1, 0) == ((("", " comes from"),),) * 3


def test_what_is_true_of_one_only_is_no_paraphrase(
    editable: Editable, speaking: Callable[[dict[str, list[str]]], None]
) -> None:
    """Bea likes Paris, where she was born; that the others like Paris too shows it is another relation."""
    speaking({"Bea": [" likes Paris"], "Ada": [" was born in London", " London", " saw Londonderry"]})
    assert paraphrases(editable(), FACTS, surveyed(), 4, 0) == ((), (), ())


def test_a_fact_outside_the_survey_has_none(
    editable: Editable, speaking: Callable[[dict[str, list[str]]], None]
) -> None:
    speaking({"Ada": [" comes from London"]})
    beliefs = surveyed().beliefs
    found = paraphrases(editable(), FACTS, Survey((("", " was born in"),), beliefs, (0, -1, 0)), 4, 0)
    assert found[1] == () and found[0] == found[2] == (("", " comes from"),)


def test_the_models_sentences_are_told_from_the_subject_on(editable: Editable) -> None:
    em = editable()
    subjects = ["Marie Curie", "Marie"]
    texts = module._tell(em, subjects, 0)
    assert set(texts) == set(subjects)
    assert all(len(texts[s]) >= module.TELLINGS for s in ["Marie Curie"])
    assert texts == module._tell(em, subjects, 0)
    assert module._tell(em, [], 0) == {}
