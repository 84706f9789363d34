"""What a prompt is about, where nobody says it: a quoted title, a name, or a number with its noun."""

from __future__ import annotations

import re

_QUOTED = re.compile(r"\"([^\"]+)\"|\u201c([^\u201d]+)\u201d|\u00ab\s*([^\u00bb]+?)\s*\u00bb")
_WORD = re.compile(r"[^\W_](?:[^\s,;:!?\"()\[\]\u201c\u201d\u00ab\u00bb]*[^\W_])?")
_POSSESSIVE = re.compile(r"(?<=\w)['\u2019]s?$")
_INSIDE = frozenset("of the de la le du del della da di van von der den and y e for in on".split())
"""Small words that stand inside names: "the Tower of London"."""
_OPENERS = frozenset(
    "who whom whose what which where when why how in on at of by for from to with as is are was were do does "
    "did has have had can could will would the a an this that these those name give tell complete once we it "
    "he she they his her its their there if and or but not no".split()
)


def name_in(prompt: str) -> str:
    """The subject of a prompt as it stands there: the last quoted title, else the longest run of capitalised
    words and numbers, small words inside it included ("Who wrote Dune?": Dune); "" where there is none.

    A sentence's first word counts where it is no function word. A number alone takes the next word along
    ("the 2026 cup").
    """
    if quoted := [next(filter(None, found)) for found in _QUOTED.findall(prompt)]:
        return str(quoted[-1])
    words = list(_WORD.finditer(prompt))
    runs: list[tuple[int, int]] = []
    start = end = -1
    for n, word in enumerate(words):
        apart = end >= 0 and not _close(words[end][0], prompt[words[end].end() : word.start()])
        small = word[0] in _INSIDE and end >= 0
        if end >= 0 and (apart or not (small or _named(word[0], n == 0))):
            runs.append((start, end))
            start = end = -1
        if _named(word[0], n == 0):
            start, end = (n if start < 0 else start), n
        elif small and start >= 0 and not apart and _reaches(words, n):
            end = n
    if end >= 0:
        runs.append((start, end))
    texts = (prompt[words[a].start() : words[_noun(words, a, b)].end()] for a, b in runs)
    found = [_POSSESSIVE.sub("", text) for text in texts]
    return max(reversed(found), key=lambda text: (not text[0].isdigit(), len(text)), default="")


def _close(word: str, between: str) -> bool:
    """Whether a name may go on after a word: behind a space, an "&", or the point of an initial."""
    return between.isspace() or between.strip() == "&" or (between == ". " and len(word) == 1)


def _named(word: str, first: bool) -> bool:
    begins = word[0].isupper() or word[0].isdigit() or any(c.isupper() for c in word[1:])
    return begins and not (first and word.casefold() in _OPENERS)


def _reaches(words: list[re.Match[str]], n: int) -> bool:
    """Whether small words from here lead to another name."""
    while n < len(words) and words[n][0] in _INSIDE:
        n += 1
    return n < len(words) and _named(words[n][0], False)


def _noun(words: list[re.Match[str]], start: int, end: int) -> int:
    """The last word of a run; of a number alone, the word behind it."""
    alone = start == end and words[start][0].isdigit()
    return end + 1 if alone and end + 1 < len(words) else end


def small_begin(text: str) -> str:
    """The text as it goes on in a sentence: its first word in small letters where it is a function word."""
    first = text.split(" ", 1)[0]
    return first.lower() + text[len(first) :] if first.casefold() in _OPENERS else text
