"""Other subjects of the edited relations: who an edit must leave alone, found in the model's own text.

A sentence of the statistics text that reads like a prompt of the batch, or like a phrasing the model
told (`told.py`), names another subject: "Ada Lovelace" *was born in*. Of those that are of the same
kind (`kinds.py`) and have a confident answer to the template, the solve preserves the keys, and the
search asks whether the answers stay. A corpus without such sentences gives none, and the text alone
stands for the rest of the world.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence

from hubedit.edit.essence import ANSWER_TOKENS, CONFIDENT, Belief, Survey
from hubedit.edit.kinds import alike
from hubedit.facts import Fact
from hubedit.facts.answers import clip, mentions
from hubedit.model.editable import EditableModel
from hubedit.model.generate import greedy
from hubedit.model.score import scores
from hubedit.model.tokens import decode

MOST_WORDS = 6
MOST_LETTERS = 80
"""Scripts without spaces have no words to count."""
READ = 50_000
"""Tokens of the corpus that are looked through."""
MOST_SUBJECTS = 200
TEMPLATES_EACH = 2

_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")


def named(texts: Sequence[str], phrasings: Sequence[tuple[str, str]], known: Sequence[str]) -> list[str]:
    """Subjects, in order of appearance, that stand between `before` and `after` of a phrasing at the
    beginning of a sentence; none that shares its name with a `known` one."""
    # the longest phrasing first: " was born in the city of" before " was born in"
    found: dict[str, None] = {}
    ordered = sorted({p for p in phrasings if p[1].strip()}, key=lambda p: (-len(p[0]) - len(p[1]), p))
    for text in texts:
        for sentence in _SENTENCE.split(text):
            for before, after in ordered:
                end = sentence.find(after, len(before))
                if end < 0 or not sentence.startswith(before):
                    continue
                subject = sentence[len(before) : end]
                short = len(subject) <= MOST_LETTERS
                if short and subject == subject.strip() and 0 < len(subject.split()) <= MOST_WORDS:
                    found.setdefault(subject)
                    break
    return [s for s in found if not any(mentions(s, k) or mentions(k, s) for k in known)]


def others(
    em: EditableModel,
    facts: Sequence[Fact],
    survey: Survey,
    told: Sequence[Sequence[tuple[str, str]]],
    rows: Sequence[Sequence[int]],
    seed: int,
) -> tuple[Belief, ...]:
    """Confident answers about other subjects of the same kinds, to the batch's own templates.

    `rows`: token rows of text; `told`: paraphrases of each fact. At most `MOST_SUBJECTS` subjects, with
    `TEMPLATES_EACH` templates each.
    """
    phrasings = [*survey.templates, *(p for own in told for p in own)]
    texts = [decode(em.tokenizer, list(ids)) for ids in rows]
    subjects = named(texts, phrasings, sorted({f.subject for f in facts}))[:MOST_SUBJECTS]
    if not subjects:
        return ()
    kinds = alike(em, facts, survey.templates, subjects)
    rng = random.Random(f"others/{seed}")
    asked: list[tuple[str, str]] = []
    for i, subject in enumerate(subjects):
        fitting = [t for t in range(len(survey.templates)) if kinds[t][i]]
        for t in rng.sample(fitting, min(TEMPLATES_EACH, len(fitting))):
            before, after = survey.templates[t]
            asked.append((before + subject + after, subject))
    answers = [clip(text) for text in greedy(em, [prompt for prompt, _ in asked], ANSWER_TOKENS)]
    said = [(p, s, a) for (p, s), a in zip(asked, answers, strict=True) if a]
    found = scores(em, [p for p, _, _ in said], [a for _, _, a in said])
    beliefs = [Belief(p, s, a, math.exp(score.logp)) for (p, s, a), score in zip(said, found, strict=True)]
    return tuple(b for b in beliefs if b.confidence >= CONFIDENT)
