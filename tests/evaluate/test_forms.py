"""The same facts asked in other forms, and what a report makes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from hubedit.evaluate.forms import form_values
from hubedit.evaluate.measure import Measured
from hubedit.evaluate.reading import Reading, read
from hubedit.evaluate.report import report
from hubedit.facts import Fact, Probe
from hubedit.model.chat import chat_of
from hubedit.model.editable import EditableModel
from hubedit.model.forms import forms_of, said, worded
from hubedit.model.tokens import continuation
from hubedit.report.measures import measures
from tests.model.test_chat import LINES, tokenizer

FACT = Fact(
    "The capital of France is",
    "France",
    "Rome",
    rephrase=("France's capital is",),
    locality=(Probe("The capital of Japan is", ("Tokyo",)),),
    question="Which city is the capital of France?",
)


@pytest.fixture
def talking(editable: Callable[..., EditableModel]) -> EditableModel:
    em = editable("llama", "metaspace_bos")
    made = tokenizer("metaspace first", True, "right", True, LINES)
    return replace(em, tokenizer=made, chat=chat_of(made))


def test_a_reading_in_a_form_asks_every_prompt_so(talking: EditableModel) -> None:
    for form in forms_of(talking):
        found = read(talking, [FACT], form=form)
        for prompt in (FACT.prompt, *FACT.rephrase, FACT.locality[0].prompt):
            question = FACT.question if prompt == FACT.prompt else ""
            text = worded(talking, prompt, form, question=question)
            (own,) = said(talking, [(prompt, text)], 40)
            answer = found.text(FACT, prompt)
            # a character of several tokens may be cut at the end
            assert answer is not None and own.startswith(answer.rstrip("\ufffd"))
            score = found.score(FACT, prompt, "Rome")
            if prompt in (FACT.prompt, *FACT.rephrase):
                assert score is not None
                assert score.labels == continuation(talking.tokenizer, text, "Rome")
    usual = read(talking, [FACT])
    assert usual.texts == read(talking, [FACT], form="chat").texts


def test_in_context_the_fact_stands_inside_the_form(talking: EditableModel) -> None:
    found = read(talking, [FACT], in_context=True, score=False)
    text = worded(talking, FACT.prompt, question=FACT.question, before="The capital of France is Rome. ")
    assert text.count("Rome. Which city is the capital") == 1
    (own,) = said(talking, [(FACT.prompt, text)], 40)
    answer = found.text(FACT, FACT.prompt)
    assert answer is not None and own.startswith(answer.rstrip("\ufffd")) and not found.scored


def readings(**texts: tuple[str, str, str]) -> dict[str, Reading]:
    """By form, what is said to the fact's own prompt, its rephrasing and its neighbour."""
    prompts = (FACT.prompt, *FACT.rephrase, FACT.locality[0].prompt)
    return {form: Reading(dict(zip(prompts, said, strict=True))) for form, said in texts.items()}


def test_values_by_form() -> None:
    before = readings(bare=("Paris", "Paris", "Tokyo"), chat=("Paris", "Paris", "It is Tokyo"))
    after = readings(bare=("Rome, of course", "Paris", "Tokyo now"), chat=("Rome.", "Rome", "Rome"))
    values = form_values([FACT], after, before)
    assert values == {
        "bare/success": [[1.0]],
        "bare/exact": [[0.0]],
        "bare/generalisation": [[0.0]],
        "bare/neighbourhood": [[1.0]],
        "chat/success": [[1.0]],
        "chat/exact": [[1.0]],
        "chat/generalisation": [[1.0]],
        "chat/neighbourhood": [[0.0]],
    }
    # that a model agrees with itself is no measurement
    assert "bare/neighbourhood" not in form_values([FACT], before)


def test_forms_stand_in_the_report_for_every_side() -> None:
    before = readings(bare=("Paris", "Paris", "Tokyo"), question=("", "", "Tokyo"))
    after = readings(bare=("Rome", "Paris", "Tokyo"), question=("Rome, he says", "Rome", "Oslo"))
    sides: Any = [
        Measured(before["bare"], forms=before, context_forms={}),
        Measured(after["bare"], forms=after),
    ]
    for side in sides:
        object.__setattr__(side, "reading", Reading({}))
    data = report([FACT], *sides)
    assert data["forms"]["before"]["question"]["success"] == 0
    assert data["forms"]["after"]["question"] == {
        "success": 1,
        "exact": 0,
        "generalisation": 1,
        "neighbourhood": 0,
    }
    shown = {(m.group, m.key): m for m in measures(data)}
    chosen = shown["forms", "question/success"]
    assert (chosen.name, chosen.text("before")[:3], chosen.text("after")[:5]) == (
        "Question: success",
        "0.0",
        "100.0",
    )
