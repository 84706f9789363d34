"""Templates from the model's own sentences: what counts as one, and what is grammar."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hubedit.edit import templates as module
from hubedit.edit.templates import Template, mine, overheard, tell
from hubedit.model.editable import EditableModel
from hubedit.model.generate import Answer

Editable = Callable[..., EditableModel]

TOWNS = {"Ada": "London", "Bea": "Paris", "Cyd": "Rome", "Dan": "Ulm"}
BORN = " was born in"


@pytest.fixture
def speaking(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`speaking(answer, first)`: what the model says after a prompt, and how sure its first token is."""

    def set_model(answer: Callable[[str], str], first: float = 0.9) -> None:
        monkeypatch.setattr(
            module, "answers", lambda em, prompts, n: [Answer(answer(p), 0.9, first) for p in prompts]
        )

    return set_model


def found(em: EditableModel, told: dict[str, list[str]], most: int = 9) -> tuple[Template, ...]:
    return mine(em, {"": told}, most)


def test_words_that_several_share_and_that_go_on_differently_are_a_template(
    editable: Editable, speaking: Callable[..., None]
) -> None:
    speaking(lambda prompt: TOWNS[prompt[:3]] if prompt.endswith(BORN) else "the same")
    told = {who: [f"{BORN} {town}."] for who, town in TOWNS.items()}
    assert found(editable(), told) == (Template("", BORN, tuple(TOWNS)),)
    assert found(editable(), told, most=0) == ()


def test_the_same_answer_for_everybody_is_grammar(editable: Editable, speaking: Callable[..., None]) -> None:
    speaking(lambda prompt: "the city")
    assert found(editable(), {who: [f"{BORN} {town}."] for who, town in TOWNS.items()}) == ()


def test_what_goes_on_in_many_ways_is_no_question(editable: Editable, speaking: Callable[..., None]) -> None:
    speaking(lambda prompt: TOWNS[prompt[:3]], first=0.2)
    assert found(editable(), {who: [f"{BORN} {town}."] for who, town in TOWNS.items()}) == ()


def test_words_about_two_subjects_are_not_enough(editable: Editable, speaking: Callable[..., None]) -> None:
    speaking(lambda prompt: TOWNS[prompt[:3]])
    assert found(editable(), {who: [f"{BORN} {TOWNS[who]}."] for who in ("Ada", "Bea")}) == ()
    assert found(editable(), {}) == ()


def test_the_most_frequent_comes_first(editable: Editable, speaking: Callable[..., None]) -> None:
    speaking(lambda prompt: TOWNS[prompt[:3]] if prompt.endswith((BORN, " comes from")) else "x")
    told = {who: [f" comes from {town}."] for who, town in TOWNS.items()}
    for who in ("Ada", "Bea", "Cyd"):
        told[who].append(f"{BORN} {TOWNS[who]}.")
    assert [t.after for t in found(editable(), told)] == [" comes from", BORN]
    assert [t.after for t in found(editable(), told, most=1)] == [" comes from"]


def test_the_beginning_of_longer_templates_is_none(editable: Editable, speaking: Callable[..., None]) -> None:
    def answer(prompt: str) -> str:
        if prompt.endswith(" was"):
            return f"born in {TOWNS[prompt[:3]]}"
        return TOWNS[prompt[:3]]

    speaking(answer)
    told = {who: [f"{BORN} {town}.", f" was {town}ish."] for who, town in TOWNS.items()}
    assert [t.after for t in found(editable(), told)] == [BORN], "' was' asks nothing of its own"


def test_words_before_a_subject_are_found_in_the_text(
    editable: Editable, speaking: Callable[..., None]
) -> None:
    asked = [f"In which city was {who} born? In {town}." for who, town in TOWNS.items()]
    told = [f"The town of {who} is {town}. Nobody knows {who}!" for who, town in TOWNS.items()]
    heard = overheard([" ".join(asked), "\n".join(told)], list(TOWNS))
    assert set(heard) == {"In which city was ", "The town of ", "Nobody knows "}
    assert heard["The town of "]["Bea"] == [" is Paris."]
    assert overheard(asked, []) == {}
    speaking(lambda prompt: next(t for who, t in TOWNS.items() if who in prompt))
    mined = mine(editable(), heard, 9)
    assert Template("In which city was ", " born? In", tuple(TOWNS)) in mined
    assert Template("The town of ", " is", tuple(TOWNS)) in mined
    assert not any(t.before == "Nobody knows " for t in mined), "nothing follows"


def test_a_longer_name_is_not_taken_for_a_shorter_one() -> None:
    heard = overheard(["The town of Marie Curie is Warsaw."], ["Marie", "Marie Curie"])
    assert heard == {"The town of ": {"Marie Curie": [" is Warsaw."]}}


def test_a_model_goes_on_from_every_subject(editable: Editable) -> None:
    em = editable()
    told = tell(em, ["Rome", "Marie Curie", "Marie"], 0)
    assert set(told) == {"Rome", "Marie Curie", "Marie"}
    assert told == tell(em, ["Rome", "Marie Curie", "Marie"], 0)
    assert tell(em, [], 0) == {}


def test_the_bundled_model_tells_its_relations() -> None:
    from hubedit.demo import facts_path, model_path
    from hubedit.facts import load_facts
    from hubedit.model.load import load

    em = load(str(model_path()), device="cpu")
    subjects = [f.subject for f in load_facts(facts_path()).facts[:40]]
    told = tell(em, subjects, 0)
    mined = mine(em, {"": told}, 40)
    assert len(mined) >= 10
    for template in mined:
        assert template.before == "" and template.after.startswith(" ")
        assert set(template.about) <= set(subjects) and len(template.about) >= 3
        assert any(
            s.startswith(template.after.strip()) for w in template.about for s in map(str.strip, told[w])
        )
