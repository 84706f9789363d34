"""Templates that the model itself uses: ways to say something about many subjects, found in its own text.

A batch asks a few relations in one phrasing each, but a new value must be read in other phrasings, and
every other relation left alone. So the model goes on from each bare subject. Words that follow several
subjects, and after which it is sure of a different answer for each, are a template ("Ada Lovelace" *is
famous for*); what goes on in many ways (" is") or alike for everybody (" was born in the") is grammar.
Sentences that name a subject further behind ("*The mother tongue of* Ada Lovelace *is*") are found in the
statistics text. No rephrasing or test prompt that belongs to the facts is looked at.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hubedit.edit.sample import sample_documents
from hubedit.facts.answers import clip, normalise
from hubedit.model.editable import EditableModel
from hubedit.model.generate import greedy
from hubedit.model.memory import TokenBudget
from hubedit.model.score import scores
from hubedit.model.tokens import decode

TELLINGS = 16
"""Continuations sampled a subject."""
LENGTH = 24
"""Tokens of each, after the subject."""
STREAMS = 512
"""Continuations sampled at once; fewer when memory runs out."""
ANSWER_TOKENS = 8
MOST_WORDS = 12
LEAST_SUBJECTS = 3
"""Subjects that must share the words, and answers that must differ."""
CANDIDATES = 160
ASKED = 8
"""Subjects that a candidate is asked of."""
DIFFERENT = 0.3
"""Least share of different answers among them."""
SURE = 0.5
"""Least mean probability of an answer's first token, and of all its tokens."""

_WORD = re.compile(r"\s*\S+")
_STATEMENT = re.compile(r"(?<=[.!])\s+|\n+")
"""Between statements; a question and its answer are one."""


@dataclass(frozen=True)
class Template:
    """Words `before` and `after` a subject, and subjects that they are known to fit."""

    before: str
    after: str
    about: tuple[str, ...]


def tell(em: EditableModel, subjects: Sequence[str], seed: int) -> dict[str, list[str]]:
    """What follows each subject in the sentences that the model makes of it."""
    if not subjects:
        return {}
    longest = max(len(em.tokenizer(s, add_special_tokens=False)["input_ids"]) for s in subjects)
    length = min(longest + LENGTH, em.max_positions)
    texts: dict[str, list[str]] = {s: [] for s in subjects}
    sizes = sorted({len(s) for s in subjects}, reverse=True)
    prompts = [s for s in subjects for _ in range(TELLINGS)]
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
                texts[text[:size]].append(clip(text[size:]))
    return texts


def overheard(texts: Sequence[str], subjects: Sequence[str]) -> dict[str, dict[str, list[str]]]:
    """By the words before a subject, where there are any, and by subject: what follows it in the texts."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    longest_first = sorted(subjects, key=lambda s: (-len(s), s))
    names = re.compile("|".join(map(re.escape, longest_first))) if subjects else None
    for statement in (part for text in texts for part in _STATEMENT.split(text)):
        named = names.search(statement) if names else None
        if named and named.start() > 0 and len(statement[: named.start()].split()) <= MOST_WORDS:
            found[statement[: named.start()]][named[0]].append(statement[named.end() :])
    return found


def mine(
    em: EditableModel, heard: Mapping[str, Mapping[str, Sequence[str]]], most: int
) -> tuple[Template, ...]:
    """At most `most` templates, the most frequent first. `heard`: by the words before a subject, and by
    subject, what follows it: of `tell` with no words before, or `overheard`."""
    shared = [(before, *words) for before, by in heard.items() for words in _shared(by)]
    tried = sorted(shared, key=lambda item: (-len(item[2]), item[0], item[1]))[:CANDIDATES]
    asked = [(i, subject) for i, (_, _, subjects) in enumerate(tried) for subject in subjects[:ASKED]]
    prompts = [tried[i][0] + subject + tried[i][1] for i, subject in asked]
    answers = [clip(text) for text in greedy(em, prompts, ANSWER_TOKENS)]
    some = [k for k, answer in enumerate(answers) if answer]
    found = dict(zip(some, scores(em, [prompts[k] for k in some], [answers[k] for k in some]), strict=True))
    said: dict[int, list[int]] = defaultdict(list)
    for k, (i, _) in enumerate(asked):
        said[i].append(k)
    kept = []
    for i, (before, words, subjects) in enumerate(tried):
        own = said[i]
        different = len({normalise(answers[k]) for k in own})
        first = sum(found[k].first for k in own if k in found) / len(own)
        whole = sum(math.exp(found[k].logp) for k in own if k in found) / len(own)
        if different >= max(LEAST_SUBJECTS, DIFFERENT * len(own)) and min(first, whole) >= SURE:
            kept.append(Template(before, words, tuple(subjects)))
    return tuple(kept[:most])


def _shared(told: Mapping[str, Sequence[str]]) -> list[tuple[str, list[str]]]:
    """The beginnings of sentences that several subjects share and that go on in several ways, with those
    subjects."""
    heard: dict[str, dict[str, None]] = defaultdict(dict)
    after: dict[str, set[str]] = defaultdict(set)
    for subject, sentences in told.items():
        for sentence in sentences:
            words = _WORD.findall(f" {sentence.strip()}")[: MOST_WORDS + 1]
            for n in range(1, len(words)):
                start = "".join(words[:n])
                heard[start].setdefault(subject)
                after[start].add(words[n])
    least = LEAST_SUBJECTS
    shared = [(s, list(who)) for s, who in heard.items() if len(who) >= least and len(after[s]) >= least]
    return shared
