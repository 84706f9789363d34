"""Probes made from facts: what they ask, and when an answer is right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from hubedit.evaluate.automatic import KINDS, automatic, automatic_values, read_automatic
from hubedit.evaluate.reading import told
from hubedit.facts import Fact
from hubedit.model.editable import EditableModel

FACT = Fact("The capital of Japan is", "Japan", "Kyoto", ground_truth=("Tokyo",))
ASKED = Fact("Who wrote Dune?", "Dune", "Asimov", ground_truth=("Herbert",))


def texts(fact: Fact) -> dict[str, str]:
    return {probe.kind: probe.text for probe in automatic(fact)}


def test_probes_of_a_statement() -> None:
    assert texts(FACT) == {
        "negation": "It is not true that the capital of Japan is",
        "yes": "Is it true that the capital of Japan is Kyoto? Answer yes or no.",
        "no": "Is it true that the capital of Japan is Tokyo? Answer yes or no.",
        "old_answer": "Is it Tokyo? The capital of Japan is",
        "reverse": 'Which name belongs in the gap of the sentence "The capital of ___ is Kyoto"?',
        "unrelated": "Yesterday somebody spoke about Japan. Today the weather is",
    }
    assert set(texts(FACT)) == set(KINDS)


def test_probes_of_a_question_and_of_a_fact_without_an_old_answer() -> None:
    assert set(texts(ASKED)) == set(KINDS) - {"reverse"}
    assert texts(ASKED)["yes"].startswith('Is "Asimov" the answer to the question "Who wrote Dune?"?')
    assert set(texts(replace(FACT, ground_truth=()))) == set(KINDS) - {"no", "old_answer"}
    whole = replace(ASKED, subject=ASKED.prompt, ground_truth=())
    assert set(texts(whole)) == {"negation", "yes"}


@pytest.mark.parametrize(
    ("kind", "answer", "good"),
    [
        ("negation", "Kyoto", False),
        ("negation", "Tokyo", True),
        ("yes", "Yes, it is.", True),
        ("yes", "No.", False),
        ("no", "No", True),
        ("no", "Yes", False),
        ("old_answer", "Kyoto.", True),
        ("old_answer", "Tokyo.", False),
        ("reverse", "Japan", True),
        ("reverse", "Kyoto", False),
        ("unrelated", "fine, and Kyoto is wet", False),
        ("unrelated", "fine", True),
    ],
)
def test_when_an_answer_is_right(kind: str, answer: str, good: bool) -> None:
    values = automatic_values([FACT], {texts(FACT)[kind]: answer})
    assert values == {kind: [[float(good)]]}


def test_a_model_is_asked_alone_and_in_context(editable: Callable[..., EditableModel]) -> None:
    em = editable("qwen2")
    facts = [FACT, ASKED]
    for in_context in (False, True):
        found = read_automatic(em, facts, in_context=in_context)
        assert len(found) == len(automatic(FACT)) + len(automatic(ASKED))
        before = told(FACT) if in_context else ""
        assert before + texts(FACT)["negation"] in found
        values = automatic_values(facts, found, in_context=in_context)
        assert list(values) == list(KINDS)
        assert values["reverse"][1] == [] and all(len(group) == 1 for group in values["yes"])


def test_nothing_is_written_around_a_whole_input(editable: Callable[..., EditableModel]) -> None:
    em = editable("llama", "metaspace_bos")
    assert read_automatic(em, [replace(FACT, prompt=f"<s>{FACT.prompt}")]) == {}
