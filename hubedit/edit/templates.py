"""Templates that the model itself uses: ways to say something about many subjects, found in its own text.

A batch asks a few relations in one phrasing each, but a new value must be read in other phrasings, and
every other relation left alone. So the model goes on from each bare subject. Words that follow several
subjects, and after which it is sure of a different answer for each, are a template ("Ada Lovelace" *is
famous for*); what goes on in many ways (" is") or alike for everybody (" was born in the") is grammar.
Sentences that name a subject further behind ("*The mother tongue of* Ada Lovelace *is*") are found in the
statistics text. No rephrasing or test prompt that belongs to the facts is looked at.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hubedit.edit.sample import sample_documents
from hubedit.facts.answers import clip, normalise, unspaced
from hubedit.model.editable import EditableModel
from hubedit.model.generate import Answer, answers
from hubedit.model.memory import TokenBudget
from hubedit.model.tokens import decode

TELLINGS = 16
"""Continuations sampled a subject."""
LENGTH = 24
"""Tokens of each, after the subject."""
STREAMS = 512
"""Continuations sampled at once; fewer when memory runs out."""
ANSWER_TOKENS = 8
MOST_WORDS = 12
MOST_LETTERS = 80
"""Scripts without spaces have no words to count."""
LEAST_SUBJECTS = 3
"""Subjects that must share the words, and answers that must differ."""
CANDIDATES = 160
ASKED = 8
"""Subjects that a candidate is asked of."""
DIFFERENT = 0.3
"""Least share of different answers among them."""
BEGUN = 0.5
"""From this share of answers on that are the words of longer templates, one asks nothing of its own."""
SURE = 0.5
"""Least mean probability of an answer's first token, and of all its tokens."""

_WORD = re.compile(r"\s*\S+")
_STATEMENT = re.compile(r"(?<=[.!])\s+|(?<=[。！])|\n+")
"""Between statements; a question and its answer are one."""


@dataclass(frozen=True)
class Template:
    """Words `before` and `after` a subject, and subjects that they are known to fit."""

    before: str
    after: str
    about: tuple[str, ...]


def tell(
    em: EditableModel, subjects: Sequence[str], seed: int, tellings: int = TELLINGS
) -> dict[str, list[str]]:
    """What follows each subject in the `tellings` sentences that the model makes of it."""
    if not subjects:
        return {}
    longest = max(len(em.tokenizer(s, add_special_tokens=False)["input_ids"]) for s in subjects)
    length = min(longest + LENGTH, em.max_positions)
    texts: dict[str, list[str]] = {s: [] for s in subjects}
    sizes = sorted({len(s) for s in subjects}, reverse=True)
    prompts = [s for s in subjects for _ in range(tellings)]
    budget = TokenBudget(em.device, STREAMS * length)
    at = 0
    while at < len(prompts):
        part = prompts[at : at + max(1, budget.tokens // length)]
        try:
            documents = sample_documents(em, len(part), length, seed + at, part)
        except RuntimeError as error:
            budget.shrink(error, len(part), length)
            continue
        at += len(part)
        for ids in documents:
            text = decode(em.tokenizer, ids).lstrip()
            # the longest name that it begins with: "Marie Curie", not "Marie"
            size = next((n for n in sizes if text[:n] in texts), 0)
            if size:
                rest = text[size:]
                # clip takes away the space between the subject and what follows; "'s" and "," have none
                texts[text[:size]].append(" " * rest[:1].isspace() + clip(rest))
    return texts


def overheard(texts: Sequence[str], subjects: Sequence[str]) -> dict[str, dict[str, list[str]]]:
    """By the words before a subject, where there are any, and by subject: what follows it in the texts."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    names = _names(subjects)
    for statement in (part.lstrip() for text in texts for part in _STATEMENT.split(text)):
        named = names.search(statement) if names else None
        before = statement[: named.start()] if named else ""
        if named and before and len(before) <= MOST_LETTERS and len(before.split()) <= MOST_WORDS:
            found[before][named[0]].append(statement[named.end() :])
    return found


def _names(subjects: Sequence[str]) -> re.Pattern[str] | None:
    """Any of the subjects as whole words, a longer name before a shorter one in it."""
    words = [
        ("" if unspaced(s[0]) else r"(?<!\w)") + re.escape(s) + ("" if unspaced(s[-1]) else r"(?!\w)")
        for s in sorted(filter(None, subjects), key=lambda s: (-len(s), s))
    ]
    return re.compile("|".join(words)) if words else None


def mine(
    em: EditableModel, heard: Mapping[str, Mapping[str, Sequence[str]]], most: int
) -> tuple[Template, ...]:
    """At most `most` templates, the most frequent first. `heard`: by the words before a subject, and by
    subject, what follows it: of `tell` with no words before, or `overheard`."""
    shared = [(before, *words) for before, by in heard.items() for words in _shared(by)]
    tried = sorted(shared, key=lambda item: (-len(item[2]), item[0], item[1]))[:CANDIDATES]
    asked = [(i, subject) for i, (_, _, subjects) in enumerate(tried) for subject in subjects[:ASKED]]
    prompts = [tried[i][0] + subject + tried[i][1] for i, subject in asked]
    said: dict[int, list[Answer]] = defaultdict(list)
    for (i, _), answer in zip(asked, answers(em, prompts, ANSWER_TOKENS), strict=True):
        said[i].append(answer)
    kept = []
    for i, own in said.items():
        different = len({normalise(a.text) for a in own if a.text})
        first, whole = sum(a.first for a in own) / len(own), sum(a.confidence for a in own) / len(own)
        if different >= max(LEAST_SUBJECTS, DIFFERENT * len(own)) and min(first, whole) >= SURE:
            kept.append(i)
    longer = [tried[i][:2] for i in kept]
    kept = [i for i in kept if not _begun(*tried[i][:2], [a.text for a in said[i]], longer)]
    return tuple(Template(tried[i][0], tried[i][1], tuple(tried[i][2])) for i in kept[:most])


def _begun(before: str, words: str, said: Sequence[str], templates: Sequence[tuple[str, str]]) -> bool:
    """Whether a template is only the beginning of longer ones: most of its answers are their words."""
    longer = tuple(t + " " for b, t in templates if b == before and t.startswith(words + " "))
    told = [f"{words} {answer} ".startswith(longer) for answer in said if answer]
    return bool(longer) and sum(told) >= BEGUN * len(told)


def _shared(told: Mapping[str, Sequence[str]]) -> list[tuple[str, list[str]]]:
    """The beginnings of sentences that several subjects share and that go on in several ways, with those
    subjects."""
    heard: dict[str, dict[str, None]] = defaultdict(dict)
    after: dict[str, set[str]] = defaultdict(set)
    for subject, sentences in told.items():
        for sentence in sentences:
            words = _WORD.findall(sentence.rstrip())[: MOST_WORDS + 1]
            for n in range(1, len(words)):
                start = "".join(words[:n])
                heard[start].setdefault(subject)
                after[start].add(words[n])
    least = LEAST_SUBJECTS
    shared = [(s, list(who)) for s, who in heard.items() if len(who) >= least and len(after[s]) >= least]
    return shared
