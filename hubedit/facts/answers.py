"""When does generated text give an answer: normalisation and exact match, with real stopping."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

_OUTER = " .,;:!?\"'()[]{}*_`~«»„“”‚‘’‹›。、，·「」『』《》〈〉【】¿¡"
_CLOSERS = "\"'”’»›)\\]」』》】"

_END = re.compile(rf"[.!?…]+[{_CLOSERS}]*(?=\s|$)|[。！？]+[{_CLOSERS}]*|\n")

# by what has to follow for the point not to end the sentence: a name, a number, a lower-case word
_BEFORE_NAMES = frozenset(
    "mr mrs ms messrs dr prof rev hon gov sen rep gen lt sgt capt cmdr adm maj st ste mt ft".split()
)
_BEFORE_NUMBERS = frozenset(
    "no nos vol pp fig approx ca jan feb mar apr jun jul aug sep sept oct nov dec".split()
)
_BEFORE_LOWER = frozenset("jr sr inc ltd co corp bros dept univ assn ave blvd rd etc al vs cf approx".split())
_OPENERS = frozenset("the a an he she it they we i you his her its their this that in on at".split())

_PUNCTUATION = re.compile(r"[.,;:!?\"]")
_LAST_WORD = re.compile(r"[^\s(\[\"'“‘«]*$")

_UNSPACED = frozenset(
    "CJK HIRAGANA KATAKANA KATAKANA-HIRAGANA IDEOGRAPHIC BOPOMOFO THAI LAO KHMER MYANMAR".split()
)


def normalise(text: str) -> str:
    """Case folded and in NFKC, white space collapsed, outer punctuation and spaces removed; text of nothing
    else ("__", an erasure's target) stays as it stands, so that it differs from other such text."""
    folded = _folded(text)
    return folded.strip(_OUTER) or folded


def gives(text: str, answers: Iterable[str]) -> bool:
    """Whether generated `text` starts with one of the answers, whole words and numbers only.

    What follows is not looked at: "Paul McCartney" gives "Paul". `says` is the strict form.

    "Paris." and "Paris, which" give "Paris"; "Parisian" does not, nor does "3.14" give "3" or "C++" "C".
    In scripts without spaces between words anything may follow. An answer of punctuation alone ("__") is
    looked for as it stands, and a longer run of it ("____") is another one. Empty answers never match.
    """
    folded = _folded(text)
    for answer in answers:
        wanted = normalise(answer)
        bare = not wanted.strip(_OUTER)
        said = folded if bare else folded.lstrip(_OUTER)
        if wanted and said.startswith(wanted):
            rest = said[len(wanted) :]
            if not (rest[:1] == wanted[-1] if bare else _goes_on(wanted[-1], rest)):
                return True
    return False


def says(text: str, answers: Iterable[str]) -> bool:
    """Whether the first sentence of generated `text` is one of the answers and nothing else.

    Exact match after normalisation, where the model itself stops: at a full stop, a line's end or the end
    of text. "Paris." gives "Paris"; "Paris, which" and "Paris Hilton" do not. Empty answers never match.
    """
    said = normalise(clip(text))
    return bool(said) and any(said == normalise(answer) for answer in answers)


def clip(text: str) -> str:
    """The first sentence of generated text, without its full stop: what is shown, and compared when no
    answer is given.

    A point inside a number ("3.14"), after an initial ("J. K. Rowling", "the U.S. Army") or after a
    common abbreviation ("St. Louis") ends no sentence.
    """
    stripped = text.strip()
    for end in _END.finditer(stripped):
        before = stripped[: end.start()]
        if not before.strip() or (end[0] == "." and _abbreviated(before, stripped[end.end() :].strip())):
            continue
        return (before + end[0].lstrip(".!?…。！？\n")).strip()
    return stripped


def unechoed(text: str, prompt: str) -> str:
    """Generated text without the prompt's own words, where it begins with them: chat models answer "The
    capital of Japan is" with the whole sentence."""
    wanted = " ".join(prompt.split()).casefold()
    said = text.lstrip()
    for end in range(len(said) + 1) if wanted else ():
        words = " ".join(said[:end].split()).casefold()
        if words == wanted:
            return said[end:]
        if not wanted.startswith(words):
            break
    return text


def unchanged(before: str, after: str) -> bool:
    """Whether two texts begin with the same word: answers of real models run on, and differ further on."""
    return first_word(before) == first_word(after)


def first_word(text: str) -> str:
    """The first word in lower case, without punctuation; "" where there is none."""
    words = _PUNCTUATION.sub(" ", text).lower().split()
    return words[0] if words else ""


def mentions(text: str, phrase: str) -> bool:
    """Whether the phrase stands in the text, as whole words, in any case: "Ada" is not in "Canada"."""
    here, wanted = _folded(text), _folded(phrase)
    at = here.find(wanted) if wanted else -1
    while at >= 0:
        begins = at == 0 or not _one_word(here[at - 1], wanted[0])
        if begins and not _goes_on(wanted[-1], here[at + len(wanted) :]):
            return True
        at = here.find(wanted, at + 1)
    return False


def _folded(text: str) -> str:
    """NFKC before and after case folding (which can undo it), every run of white space one space."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.split())


def _goes_on(last: str, rest: str) -> bool:
    """Whether the word or number that ends with the character `last` goes on in `rest`."""
    if not rest:
        return False
    after = rest[0]
    if unicodedata.category(after).startswith("M"):  # a vowel sign or an accent of `last`
        return True
    if last.isdigit() and re.match(r"[.,]\d", rest):
        return True
    if _in_word(last) and re.match(r"[+#]|&\w", rest):
        return True
    return _one_word(last, after)


def _one_word(a: str, b: str) -> bool:
    return _in_word(a) and _in_word(b) and not (unspaced(a) or unspaced(b))


def _in_word(character: str) -> bool:
    return character.isalnum() or unicodedata.category(character).startswith("M")


def unspaced(character: str) -> bool:
    """Whether the script writes no spaces between words."""
    return unicodedata.name(character, "").split(" ")[0] in _UNSPACED


def _abbreviated(before: str, after: str) -> bool:
    """Whether the point between the two belongs to the word before it, and the sentence goes on."""
    found = _LAST_WORD.search(before)
    word = found[0].casefold() if found else ""
    if not after or not word:
        return False
    if word in _BEFORE_NUMBERS and after[0].isdigit():
        return True
    if word in _BEFORE_LOWER:
        return after[0].islower()
    if word in _BEFORE_NAMES:
        return True
    last = before[-1]
    initial = last.isalpha() and (len(word) == 1 or word[-2] == ".") and not unspaced(last)
    # "vitamin C. The ...", "in the U.S. He ...": an initial, and all the same the end
    opens = after.split()[0].casefold() in _OPENERS and after[0].isupper()
    return initial and (last.isupper() or "." in word) and not opens
