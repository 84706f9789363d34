"""Normal form, placeholders, and finding a subject that a prompt spells in its own way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubedit.facts.text import clean, fill, spelling, trim


@pytest.mark.parametrize(
    ("prompt", "subject", "expected"),
    [
        ("The capital of France is", "France", "France"),
        ("The capital of france is", "France", "france"),
        ("Beyonce sang in", "Beyoncé", "Beyonce"),
        ("Where is SÃO PAULO?", "Sao Paulo", "SÃO PAULO"),
        ("The Ship of  Fools sank", "Ship_of_Fools", "Ship of  Fools"),
        ("The 2010\u201311 season", "2010-11 season", "2010\u201311 season"),
        ("Who is O\u2019Brien?", "O'Brien", "O\u2019Brien"),
        ("Mercury is a", "Mercury (planet)", "Mercury"),
        ("The river in straße 5", "STRASSE 5", "straße 5"),
        ("東京は日本の", "東京", "東京"),
        ("The music of", "US", None),  # folded, it lies inside a word
        ("The capital of Spain", "France", None),
        ("The capital", "", None),
        ("a - b", "(x)", None),
    ],
)
def test_spelling(prompt: str, subject: str, expected: str | None) -> None:
    assert spelling(prompt, subject) == expected


@pytest.mark.parametrize(
    ("prompt", "subject", "expected"),
    [
        ("{} is in", "Rome", "Rome is in"),
        ("{} and {}", "a", "a and a"),
        ("The capital of {} is", "cap", "The capital of cap is"),
        ("The macro fmt{} is", "fmt{}", "The macro fmt{} is"),
        ("no place", "Rome", "no place"),
        ('println!("{}") with Rome', "Rome", 'println!("{}") with Rome'),
        ("{} is not ROME", "Rome", "{} is not ROME"),
        ("{} is not Romeo", "Rome", "Rome is not Romeo"),
        ("{} は東京の", "東京", "{} は東京の"),
    ],
)
def test_fill(prompt: str, subject: str, expected: str) -> None:
    assert fill(prompt, subject) == expected
    assert fill(expected, subject) == expected


@given(st.text())
def test_normal_forms_are_idempotent(text: str) -> None:
    assert clean(clean(text)) == clean(text)
    assert trim(trim(text)) == trim(text)
    assert trim(text) in text


@given(st.text(), st.text(min_size=1))
def test_a_spelling_is_in_the_prompt(prompt: str, subject: str) -> None:
    found = spelling(prompt, subject)
    assert found is None or (found and found in prompt)
    if subject in prompt:
        assert found == subject
