"""Strings as they come from people's files: one normal form, loose comparison, placing a subject."""

from __future__ import annotations

import re
import unicodedata

_SURROGATE = re.compile("[\ud800-\udfff]")
_QUOTES = str.maketrans({"\u2018": "'", "\u2019": "'", "\u02bc": "'", "\u201c": '"', "\u201d": '"', "_": " "})
_ENDS = re.compile(r"\A[\s\ufeff]+|[\s\ufeff]+\Z")
_QUALIFIER = re.compile(r"\s*\([^()]*\)$")


def clean(text: str) -> str:
    """Normal form of every stored string: Unicode NFC, no byte-order mark, no white space at its ends."""
    return _ENDS.sub("", unicodedata.normalize("NFC", text))


def is_text(text: str) -> bool:
    """False for a string with half a surrogate pair (JSON can spell one), which no file can hold."""
    return _SURROGATE.search(text) is None


def loose(text: str) -> str:
    """For comparison only: case folded, every run of white space one space."""
    return " ".join(text.split()).casefold()


def fill(prompt: str, subject: str) -> str:
    """The prompt with each `{}` replaced by the subject.

    A `{}` that is part of the subject's own spelling is none, so that filling twice changes nothing.
    """
    if "{}" not in prompt or (subject and "{}" not in prompt.replace(subject, "\0")):
        return prompt
    return prompt.replace("{}", subject)


def spelling(prompt: str, subject: str) -> str | None:
    """How the prompt itself spells the subject, or None where it does not hold it.

    The exact string wins. Else whole words that differ only in case, accents, white space, dashes or
    quotation marks; last, the subject without a qualifier in brackets ("Mercury (planet)").
    """
    if not subject:
        return None
    if subject in prompt:
        return subject
    found = _search(prompt, subject)
    bare = _QUALIFIER.sub("", subject)
    if found is None and bare and bare != subject:
        return spelling(prompt, bare)
    return found


def whole_word(text: str, start: int, end: int) -> bool:
    """Whether text[start:end] neither begins nor ends inside a word."""
    left = start > 0 and text[start - 1].isalnum() and text[start].isalnum()
    right = end < len(text) and text[end].isalnum() and text[end - 1].isalnum()
    return not (left or right)


def _search(prompt: str, subject: str) -> str | None:
    units, origin = _fold(prompt)
    wanted = "".join(_fold(subject)[0]).strip()
    folded = "".join(units)
    at = folded.rfind(wanted) if wanted else -1
    while at >= 0:
        last = at + len(wanted) - 1
        begins = at == 0 or origin[at - 1] != origin[at]
        ends = last + 1 == len(origin) or origin[last + 1] != origin[last]
        start, end = origin[at], origin[last] + 1
        while end < len(prompt) and unicodedata.combining(prompt[end]):
            end += 1
        if begins and ends and whole_word(prompt, start, end):
            return prompt[start:end]
        at = folded.rfind(wanted, 0, last)
    return None


def _fold(text: str) -> tuple[list[str], list[int]]:
    """Folded characters, one string each, and the index in `text` that each came from."""
    units: list[str] = []
    origin: list[int] = []
    for index, char in enumerate(text.translate(_QUOTES)):
        for unit in unicodedata.normalize("NFKD", char.casefold()):
            if unicodedata.combining(unit):
                continue
            unit = "-" if unicodedata.category(unit) == "Pd" else " " if unit.isspace() else unit
            if unit == " " and units and units[-1] == " ":
                continue
            units.append(unit)
            origin.append(index)
    return units, origin
