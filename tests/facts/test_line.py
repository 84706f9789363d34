"""Facts typed on a command line, and the subject that is found in a prompt."""

from __future__ import annotations

import pytest

from hubedit.errors import FactsError
from hubedit.facts import typed_facts
from hubedit.facts.line import named_subject


@pytest.mark.parametrize(
    ("prompt", "subject"),
    [
        ("The capital of Japan is", "Japan"),
        ("The Eiffel Tower is in the city of", "Eiffel Tower"),
        ("Who wrote Dune?", "Dune"),
        ("Paris is the capital of", "Paris"),
        ("Romeo and Juliet was written by", "Romeo and Juliet"),
        ("The Statue of Liberty is in the city of", "Statue of Liberty"),
        ("Vincent van Gogh was a", "Vincent van Gogh"),
        ("Danielle Darrieux's mother tongue is", "Danielle Darrieux"),
        ("Mozart's opera Don Giovanni was first given in", "Don Giovanni"),
        ("The iPhone is made by the company", "iPhone"),
        ("In Japan, the president of Sony is", "Sony"),
        ("The U.S. capital is", "U.S"),
        ("Coca-Cola comes from the country of", "Coca-Cola"),
        ("La capitale du Japon est", "Japon"),
        ("the sun rises in the", ""),
        ("The sun rises in the", ""),
        ("日本の首都は", ""),
        ("", ""),
    ],
)
def test_the_subject_is_the_last_name(prompt: str, subject: str) -> None:
    assert named_subject(prompt) == subject


def test_a_line_is_a_fact() -> None:
    loaded = typed_facts(
        [
            "The capital of Japan is -> Kyoto",
            "  a -> b, said Euler→ c ",
            "The [sun] rises in the -> west",
        ]
    )
    assert [(f.prompt, f.subject, f.target) for f in loaded.facts] == [
        ("The capital of Japan is", "Japan", "Kyoto"),
        ("a -> b, said Euler", "Euler", "c"),
        ("The sun rises in the", "sun", "west"),
    ]
    assert [fact.line for fact in loaded.facts] == [1, 2, 3]
    assert loaded.sha256


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("The capital of Japan is Kyoto", 'is no fact; write it as --fact "The capital'),
        ("The capital of Japan is ->", "is no fact"),
        ("-> Kyoto", "is no fact"),
        ("the sun rises in the -> west", "no capitalised name; mark what the fact is about"),
        ("[Japan] is near [Korea] and -> China", "marks 2 subjects"),
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
