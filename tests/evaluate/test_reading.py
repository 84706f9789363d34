"""What a tiny model says to the prompts of facts, alone and in context."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from hubedit.evaluate import compare, read
from hubedit.evaluate.forced import forced
from hubedit.evaluate.forms import all_forms
from hubedit.evaluate.reading import full_prompt
from hubedit.facts import Fact
from hubedit.model.editable import EditableModel
from hubedit.model.forms import forms_of
from hubedit.model.generate import greedy
from hubedit.model.tokens import continuation
from tests.evaluate.test_edits import FACT, compared
from tests.evaluate.test_measure import Watched

Editable = Callable[..., EditableModel]


@pytest.mark.parametrize("in_context", [False, True])
def test_a_reading_joins_targets_as_the_facts_say(editable: Editable, in_context: bool) -> None:
    em = editable()
    glued = Fact("The capital of France is", "France", "ly", rephrase=("France is",), join="")
    found = read(em, [glued], in_context=in_context)
    for prompt in (glued.prompt, *glued.rephrase):
        score = found.score(glued, prompt, "ly")
        whole = full_prompt(glued, prompt, in_context)
        assert score is not None and score.labels == continuation(em.tokenizer, whole, "ly", "")
        assert score.labels != continuation(em.tokenizer, whole, "ly")
    assert full_prompt(glued, "France is", True) == "The capital of France isly. France is"


def test_in_context_the_fact_stands_in_front(editable: Editable) -> None:
    em = editable()
    found = read(em, [FACT], in_context=True)
    prompt = "The capital of France is Rome. France's capital is"
    assert full_prompt(FACT, "France's capital is", True) == prompt
    assert found.text(FACT, "France's capital is") == greedy(em, [prompt], 30)[0][: len(found.texts[prompt])]
    alone = forced(em, [(full_prompt(FACT, FACT.prompt, True), "Rome")])
    score = found.score(FACT, FACT.prompt, "Rome")
    assert score is not None and score.logp == pytest.approx(next(iter(alone.values())).logp, abs=1e-4)
    # of two facts that share a probe each has its own context
    second = replace(FACT, target="Tokyo")
    both = read(em, [FACT, second], in_context=True)
    assert len(both.texts) == 2 * len(found.texts)
    told = compare([FACT], read(em, [FACT]), found)
    assert told.counts == compared().counts


def test_a_reading_shows_how_far_it_is(editable: Editable) -> None:
    em = editable()
    shown = Watched()
    found = read(em, [FACT], progress=shown, stage="asking before")
    count = len(found.texts) + len(found.scored)
    assert shown.stages == [("asking before", count)] and shown.done == count > 1
    forms = all_forms(em, [FACT], found, shown, "in other forms")
    others = sum(len(reading.texts) for form, reading in forms.items() if reading is not found)
    assert shown.stages[1:] == [("in other forms", others)] and shown.done == count + others
    assert list(forms) == list(forms_of(em)) and forms["bare"] is found
