"""How an answer is joined to its prompt: the one place that decides what stands between the two."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import TYPE_CHECKING

from hubedit.facts.types import Fact
from hubedit.model.chat import markers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def joined(
    text: str, answer: str, join: str | None = None, tokenizer: PreTrainedTokenizerFast | None = None
) -> str:
    """The prompt followed by the answer. White space before the answer is dropped; between the two stands
    `join`, or where it is None what ordinary text has there: one space, but none

    - after white space, an opening bracket or quote, a currency sign, an operator that is written closed up
      ("2+2=", "user@", "and/"), a hyphen and an elision ("l'");
    - before punctuation that closes ("5" and "%");
    - in scripts written without spaces (Han, Kana, Thai, Lao, Khmer, Myanmar).

    With a tokenizer, what its chat template writes after its generation prompt, where the text ends in it,
    and nothing after a special token.
    """
    answer = answer.lstrip()
    if join is None and tokenizer is not None:
        join = _after_turn(tokenizer, text)
    if join is None:
        join = "" if not text or closed_up(text, answer) else " "
    return f"{text}{join}{answer}"


def joins(facts: Iterable[Fact]) -> dict[str, str]:
    """By prompt, what stands between it and the target, of facts that say so themselves."""
    given = ((fact, fact.join) for fact in facts)
    return {p: join for fact, join in given if join is not None for p in (fact.prompt, *fact.rephrase)}


def templated(tokenizer: PreTrainedTokenizerFast, text: str) -> bool:
    """Whether the text is a whole input, so that nothing can be written in front of it or around it: it
    begins with a special token or as a chat template begins, or it ends in a generation prompt."""
    known = markers(tokenizer)
    if text.startswith(known.special):
        return True
    if known.chat is None:
        return False
    bos = str(tokenizer.bos_token or "")
    begins = text.startswith((*known.heads, *(head.removeprefix(bos) for head in known.heads)))
    return begins or (bool(known.chat.turn.strip()) and text.endswith(known.chat.turn))


def closed_up(text: str, answer: str) -> bool:
    """Whether ordinary text has no space between the two."""
    end, before = text[-1], text[-2:-1]
    if end.isspace() or end in _OPENING or end in _GLUING or unspaced(end):
        return True
    if unicodedata.category(end) == "Cf":  # zero-width space, joiner, soft hyphen
        return True
    if answer and _closes(answer):
        return True
    apart = not before or before.isspace()  # a sign with space before it
    if unicodedata.category(end) == "Sc":  # "US$" and "(€" open, "5 €" does not
        return not text[:-1].rstrip()[-1:].isdigit()
    if end in _OPERATORS:
        return not apart
    if end in _HYPHENS:  # "well-"; "is -" and a number
        return not apart or (end in "-\u2212" and bool(before) and answer[:1].isdigit())
    if end in _QUOTES:  # a straight quote opens where a word could begin
        opens = apart or before in _OPENING or before in _GLUING or before in _OPERATORS
        return opens or (end in "'\u2019" and _elided(text))
    if end == "#":
        return before == " "
    # "首都在2020" + "年": a Latin word or number at the end of a text in such a script
    return bool(answer) and unspaced(answer[0]) and any(unspaced(c) for c in text)


def unspaced(character: str) -> bool:
    """Whether the character belongs to a script without spaces between words, or to its punctuation."""
    point = ord(character)
    return any(low <= point <= high for low, high in _NO_SPACES)


def _closes(answer: str) -> bool:
    """Whether the answer begins with what is written right after a word: ", which", "%", "'s"."""
    if answer[0] in ",;)]}%":
        return True
    if answer[0] in ".!?\u2026":  # not ".NET"
        return not answer[1:2].isalnum()
    return answer[:2].casefold() in ("'s", "\u2019s") and not answer[2:3].isalnum()


def _elided(text: str) -> bool:
    """Whether the apostrophe at the end stands for letters left out before the next word: "l'", "dell'",
    "O'"; not "the dogs'", nor 'the letter \u2018a\u2019'."""
    at = len(text) - 1
    while at and text[at - 1].isalpha():
        at -= 1
    word = text[at:-1].casefold()
    quoted = at > 0 and text[at - 1] in "'\u2018\u201a"
    return not quoted and (len(word) == 1 or word in _ELISIONS)


def _after_turn(tokenizer: PreTrainedTokenizerFast, text: str) -> str | None:
    """What stands between the text and an answer where the text ends in a chat template's generation prompt
    or in a special token; None elsewhere."""
    end = text[-1:]
    # most prompts end so, and no generation prompt does that ordinary text would not join alike
    if not end or end.isspace() or end.isalnum() or end in ".,:;?!\"'":
        return None
    known = markers(tokenizer)
    if known.chat is not None and known.chat.turn and text.endswith(known.chat.turn):
        join = known.chat.between
        if join is not None:
            return join
    return "" if text.endswith(known.added) else None


_OPENING = frozenset("([{<“‘«‹„‚¿¡「『【〈《〔（［｛")
_GLUING = frozenset("/\\_^√±~")
_OPERATORS = frozenset("=+*@&|")
_HYPHENS = frozenset("-\u2010\u2011\u2012\u2013\u2014\u2212\u05be")
_QUOTES = frozenset("\"'`\u2019")
_ELISIONS = frozenset(
    "qu jusqu lorsqu puisqu quoiqu quelqu dell all nell dall sull coll un quest quell bell sant mc".split()
)
_NO_SPACES = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x19E0, 0x19FF),  # Khmer symbols
    (0x2E80, 0x312F),  # Han radicals, CJK punctuation, Kana, Bopomofo
    (0x31A0, 0x9FFF),  # Kana extensions, Han
    (0xA9E0, 0xA9FF),  # Myanmar extended
    (0xAA60, 0xAA7F),
    (0xF900, 0xFAFF),  # Han compatibility
    (0xFF01, 0xFF9F),  # full-width punctuation, half-width Kana
    (0x20000, 0x3FFFF),  # Han extensions
)
