"""Facts typed on a command line."""

from __future__ import annotations

import pytest

from hubedit.errors import FactsError
from hubedit.facts import typed_facts
from hubedit.facts.line import written

LINES = ["The capital of Japan is -> Kyoto", "  a -> b, said Euler→ c ", "The [sun] rises in the -> west"]


def test_a_line_is_a_fact() -> None:
    loaded = typed_facts(LINES)
    assert [(f.prompt, f.subject, f.target) for f in loaded.facts] == [
        ("The capital of Japan is", "Japan", "Kyoto"),
        ("a -> b, said Euler", "Euler", "c"),
        ("The sun rises in the", "sun", "west"),
    ]
    assert [fact.line for fact in loaded.facts] == [1, 2, 3]
    assert loaded.sha256
    # which subject was taken is told, where nobody said it
    assert len([line for line in loaded.notices if "no subject" in line]) == 2


def test_a_fact_is_written_as_it_is_read() -> None:
    facts = typed_facts(
        [*LINES, "the sun rises in the -> west", "The capital of [Rome and Italy] is -> Pisa"]
    )
    again = typed_facts([written(fact) for fact in facts.facts])
    assert again.facts == facts.facts
    assert written(again.facts[0]) == LINES[0]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("The capital of Japan is Kyoto", 'lacks a "->"; write it as --fact "The capital'),
        ("The capital of Japan is ->", 'lacks an answer after "->"'),
        ("-> Kyoto", 'lacks a prompt before "->"'),
        ("[Japan] is near [Korea] and -> China", "marks 2 subjects"),
        ("The [capital of Peru is -> Lima", "square brackets that mark no subject"),
        ("The capital of [[Peru]] is -> Lima", "square brackets that mark no subject"),
    ],
)
def test_every_fault_is_told(line: str, problem: str) -> None:
    with pytest.raises(FactsError) as caught:
        typed_facts(["The capital of Spain is -> Toledo", line])
    assert any(problem in what and what.startswith("--fact:2: ") for what in caught.value.problems)


def test_lines_that_contradict_each_other() -> None:
    with pytest.raises(FactsError) as caught:
        typed_facts(["The capital of Japan is -> Kyoto", "The capital of Japan is -> Nara"])
    assert "contradicts line 1" in caught.value.problems[0]
