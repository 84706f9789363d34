"""When does generated text give an answer? Cases by hand, and what must hold for any text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubedit.facts.answers import clip, gives, mentions, normalise, says, unchanged

WORDS = st.text("ab Ã.é東,!-'3", max_size=12)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (" Paris", "Paris"),
        ("Paris.", "Paris"),
        ("Paris, which is", "Paris"),
        ("\n paris\tis", "PARIS"),
        ("New  York City", "New York"),
        ("New York.", "New York."),
        ('"Paris" is', "Paris"),
        ("“Paris”", "Paris"),
        ("« Paris »", "Paris"),
        ("**Paris** is", "Paris"),
        ("(Paris)", "paris"),
        ("Paris's", "Paris"),
        ("the United States", "The United States"),
        ("U.S. Army", "U.S. Army"),
        ("U.S. Army", "U.S."),
        ("3.14 is", "3.14"),
        ("3.14.", "3.14"),
        ("1990, when", "1990"),
        ("1,000 people", "1,000"),
        ("STRASSE", "Straße"),
        ("Ｔｏｋｙｏ", "Tokyo"),
        ("São Paulo", "Sa\u0303o Paulo"),
        ("東京都です", "東京"),
        ("コンピューターです", "コンピューター"),
        ("佐々木", "佐々"),
        ("กรุงเทพมหานคร", "กรุงเทพ"),
        ("Appleの", "Apple"),
        ("2020年", "2020"),
        ("हिन्दी है", "हिन्दी"),
        ("C++ and", "C++"),
        ("AT&T, a", "AT&T"),
    ],
)
def test_it_gives(text: str, answer: str) -> None:
    assert gives(text, [answer])
    assert gives(text, ["something else", answer])


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Parisian", "Paris"),
        ("Par", "Paris"),
        ("in Paris", "Paris"),
        ("not Paris", "Paris"),
        ("New Yorkers", "New York"),
        ("Paris2", "Paris"),
        ("3.14", "3"),
        ("3.141", "3.14"),
        ("1,000,000", "1"),
        ("19901", "1990"),
        ("हिन्दी", "हिन्द"),
        ("Zu\u0308rich", "Zu"),
        ("C++", "C"),
        ("AT&T", "AT"),
        ("", "Paris"),
        ("Paris", ""),
        ("Paris", " . "),
        ("", ""),
        ("São", "Sao"),
    ],
)
def test_it_does_not_give(text: str, answer: str) -> None:
    assert not gives(text, [answer])


def test_without_answers_nothing_is_given() -> None:
    assert not gives("Paris", [])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("Paris. It is", "Paris"),
        (" Paris\nThe next", "Paris"),
        ("Paris! Yes", "Paris"),
        ("Is it? No", "Is it"),
        ("Well... he", "Well"),
        ("Paris", "Paris"),
        ("Paris.", "Paris"),
        ("", ""),
        ("...", "..."),
        ("in 1990. He", "in 1990"),
        ("no. He is", "no"),
        ("3.14 is pi. More", "3.14 is pi"),
        ("version 2.0.1. Then", "version 2.0.1"),
        ("the U.S. Army. He", "the U.S. Army"),
        ("the U.S. He was", "the U.S"),
        ("Washington, D.C. and", "Washington, D.C. and"),
        ("J. K. Rowling. She", "J. K. Rowling"),
        ("I. M. Pei. He", "I. M. Pei"),
        ("vitamin C. The", "vitamin C"),
        ("St. Louis. Then", "St. Louis"),
        ("Dr. Strangelove, or", "Dr. Strangelove, or"),
        ("No. 5. He", "No. 5"),
        ("Jan. 5, 1990. He", "Jan. 5, 1990"),
        ("Apple Inc. in Cupertino. It", "Apple Inc. in Cupertino"),
        ("Apple Inc. It", "Apple Inc"),
        ("at 5 p.m. on Sunday. He", "at 5 p.m. on Sunday"),
        ("example.com is. Then", "example.com is"),
        ("东京。它是", "东京"),
        ("東京です！次は", "東京です"),
        ("A社. 次", "A社"),
        ('He said "no." Then', 'He said "no"'),
        (". Paris. Then", ". Paris"),
    ],
)
def test_the_first_sentence(text: str, sentence: str) -> None:
    assert clip(text) == sentence


@given(WORDS, WORDS)
def test_what_holds_for_any_text(text: str, more: str) -> None:
    assert normalise(normalise(text)) == normalise(text)
    assert len(clip(text)) <= len(text) and clip(text)[:1] == text.strip()[:1]
    if normalise(text):
        assert gives(text, [text])
        # after a run of punctuation more of the same makes another answer
        assert gives(f"{text} {more}", [text]) or not more.strip() or not normalise(text)[-1].isalpha()
        assert gives(text.upper(), [text]) == gives(text, [text.upper()])
    assert unchanged(text, text)
    assert unchanged(text, more) == unchanged(more, text)


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        (" Paris. It is big", "paris, he", True),
        ('"Paris" is', "Paris", True),
        ("the U.S. Army", "the Navy", True),
        ("Paris", "Rome", False),
        ("Parisian", "Paris", False),
        ("3.14", "3.15", True),
        ("日本 の", "日本、 東京", False),
        ("", " .", True),
        ("", "Paris", False),
    ],
)
def test_what_counts_as_unchanged(before: str, after: str, same: bool) -> None:
    assert unchanged(before, after) is same


@pytest.mark.parametrize(
    ("text", "phrase", "there"),
    [
        ("The capital of Canada is", "Ada", False),
        ("Was ada there", "Ada", True),
        ("Canada and Ada", "Ada", True),
        ("Ada", "Ada", True),
        ("日本の首都は", "日本", True),
        ("New\nYork", "new york", True),
        ("anything", "", False),
    ],
)
def test_a_phrase_is_mentioned_as_whole_words(text: str, phrase: str, there: bool) -> None:
    assert mentions(text, phrase) is there


@pytest.mark.parametrize(
    ("text", "answers", "good"),
    [
        (" Paris.", ("Paris",), True),
        (' "PARIS"\nIt is', ("Paris",), True),
        (" Paris, which is large.", ("Paris",), False),
        (" Paul McCartney. He", ("Paul",), False),
        (" Paul McCartney. He", ("Paul", "Paul McCartney"), True),
        (" St. Louis. It", ("St. Louis",), True),
        ("巴黎。它", ("巴黎",), True),
        (" ", ("", " "), False),
    ],
)
def test_an_answer_and_nothing_else(text: str, answers: tuple[str, ...], good: bool) -> None:
    assert says(text, answers) is good
    if good:  # the strict form is never met where the other is not
        assert gives(text, answers)
