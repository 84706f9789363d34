"""When does generated text give an answer: normalisation and exact match, with real stopping."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

SENTENCE_END = re.compile(r"[.!?。！？](?=\s|$)|\n")


def normalise(text: str) -> str:
    """NFKC, case folded, white space collapsed, outer punctuation and spaces removed."""
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return folded.strip(" .,;:!?\"'()[]。，")


def gives(text: str, answers: Iterable[str]) -> bool:
    """Whether generated `text` starts with one of the answers, whole words only.

    "Paris." and "Paris, which" give "Paris"; "Parisian" does not. Empty answers never match.
    """
    said = normalise_start(text)
    for answer in answers:
        wanted = normalise(answer)
        if wanted and said.startswith(wanted):
            rest = said[len(wanted) :]
            if not rest or not (rest[0].isalnum() and wanted[-1].isalnum() and not _joins(wanted[-1])):
                return True
    return False


def normalise_start(text: str) -> str:
    """As `normalise`, but keeps the end of the text."""
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return folded.lstrip(" .,;:!?\"'()[]。，")


def clip(text: str) -> str:
    """The first sentence of generated text: what is shown, and compared when no answer is given."""
    stripped = text.strip()
    end = SENTENCE_END.search(stripped)
    return stripped[: end.start()].strip() if end and end.start() > 0 else stripped


def unchanged(before: str, after: str, answers: Iterable[str] = ()) -> bool:
    """Whether an edit left a neighbouring answer alone.

    Where the model gave one of the known answers before, it must give one after; elsewhere the first
    sentence must be the same.
    """
    known = tuple(answers)
    if known and gives(before, known):
        return gives(after, known)
    return normalise(clip(before)) == normalise(clip(after))


def _joins(character: str) -> bool:
    """Scripts without spaces between words: any next character may follow."""
    return unicodedata.name(character, "").split(" ")[0] in {"CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO"}
