"""Strings as they come from people's files: one normal form, loose comparison, placing a subject."""

from __future__ import annotations

import re
import unicodedata

from hubedit.facts.answers import unspaced

_SURROGATE = re.compile("[\ud800-\udfff]")
_QUOTES = str.maketrans({"\u2018": "'", "\u2019": "'", "\u02bc": "'", "\u201c": '"', "\u201d": '"', "_": " "})
_ENDS = re.compile(r"\A[\s\ufeff]+|[\s\ufeff]+\Z")
_QUALIFIER = re.compile(r"\s*\([^()]*\)$")


def clean(text: str) -> str:
    """Normal form of names and of answers that are only compared: Unicode NFC, trimmed."""
    return trim(composed(text))


def trim(text: str) -> str:
    """As it was written, without byte-order mark and white space at its ends: subjects and targets."""
    return _ENDS.sub("", text)


def is_blank(text: str) -> bool:
    """Whether a text shows nothing: white space, control and format characters (a zero-width space) alone."""
    return all(sign.isspace() or unicodedata.category(sign) in ("Cc", "Cf") for sign in text)


def composed(text: str) -> str:
    """Unicode NFC."""
    return unicodedata.normalize("NFC", text)


def is_text(text: str) -> bool:
    """False for a string with half a surrogate pair (JSON can spell one), which no file can hold."""
    return _SURROGATE.search(text) is None


def loose(text: str) -> str:
    """For comparison only: composed, case folded, every run of white space one space."""
    return " ".join(composed(text).split()).casefold()


def fill(prompt: str, subject: str) -> str:
    """The prompt with each `{}` replaced by the subject, where the subject stands nowhere else in it.

    A `{}` in the subject's own spelling is no placeholder either, so that filling twice changes nothing.
    """
    if "{}" not in prompt or braces_are_text(prompt, subject):
        return prompt
    return prompt.replace("{}", subject)


def braces_are_text(prompt: str, subject: str) -> bool:
    """Whether every `{}` of the prompt is what it looks like: the subject is there already."""
    if not subject or "{}" not in prompt:
        return False
    return "{}" not in prompt.replace(subject, "") or stands(prompt, subject)


def stands(prompt: str, subject: str) -> bool:
    """Whether the prompt holds the subject as whole words, in any of the spellings that `spelling` finds."""
    at = prompt.find(subject) if subject else -1
    while at >= 0:
        end = at + len(subject)
        if whole_word(prompt, at, end) or unspaced(subject[0]) or unspaced(subject[-1]):
            return True
        at = prompt.find(subject, at + 1)
    return _search(prompt, subject) is not None


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
