"""Other subjects of the edited relations: who an edit must leave alone, found in the model's own text.

A sentence of the statistics text that reads like a template, of the batch or one that the model told
(`templates.py`), names another subject: "Ada Lovelace" *was born in*. Of those that are of the same kind
(`kinds.py`) and have a confident answer, the solve preserves the keys, and the search asks whether the
answers stay; and they tell what follows from a new answer (`implied.py`). A corpus without such sentences
gives none, and the text alone stands for the rest of the world.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hubedit.edit.essence import CONFIDENT, Belief, Survey, ask, batch_templates
from hubedit.edit.kinds import Kinds, suited
from hubedit.edit.templates import Template
from hubedit.facts import Fact
from hubedit.facts.answers import mentions, normalise, unspaced
from hubedit.model.editable import EditableModel

MOST_WORDS = 6
MOST_LETTERS = 80
"""Scripts without spaces have no words to count."""
READ, READ_EACH = 50_000, 75
"""Tokens of the corpus that are looked through at most; and, of a model's own text, for each fact."""
LEAST_SUBJECTS, MOST_SUBJECTS = 200, 1000
"""As many as are edited, within these: an edit of hundreds moves others whom none of 200 stands for
(docs/experiments.md)."""
TEMPLATES_EACH = 2

_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")


def enough(facts: int) -> int:
    """How many other subjects are looked for beside so many facts."""
    return min(max(facts, LEAST_SUBJECTS), MOST_SUBJECTS)


def named(
    texts: Sequence[str], phrasings: Sequence[tuple[str, str]], known: Sequence[str], most: int
) -> list[str]:
    """At most `most` subjects, in order of appearance, that stand between `before` and `after` of a phrasing
    at the beginning of a sentence; none that shares its name with a `known` one."""
    # the longest phrasing first: " was born in the city of" before " was born in"
    found: dict[str, None] = {}
    ordered = sorted({p for p in phrasings if p[1].strip()}, key=lambda p: (-len(p[0]) - len(p[1]), p))
    for text in texts:
        for sentence in _SENTENCE.split(text):
            for before, after in ordered:
                if not sentence.startswith(before):
                    continue
                end = sentence.find(after, len(before))
                if end < 0:
                    continue
                subject = sentence[len(before) : end]
                short = len(subject) <= MOST_LETTERS
                if short and subject == subject.strip() and 0 < len(subject.split()) <= MOST_WORDS:
                    found.setdefault(subject)
                    break
    # names that share a word are few; only a script without spaces hides one name in another
    by_word: dict[str, list[str]] = defaultdict(list)
    whole = [k for k in known if any(map(unspaced, k))]
    for k in known:
        for word in _words(k):
            by_word[word].append(k)
    kept: list[str] = []
    for s in found:
        near = {k for word in _words(s) for k in by_word[word]} | set(whole)
        if not any(mentions(s, k) or mentions(k, s) for k in near):
            kept.append(s)
        if len(kept) == most:
            break
    return kept


def _words(name: str) -> set[str]:
    return set(re.findall(r"\w+", normalise(name)))


@dataclass(frozen=True)
class Others:
    """Confident answers of other subjects: `beliefs[subject][relation]`, in the relation's first phrasing
    that fits; `edited`: the relations that the batch edits."""

    beliefs: Mapping[str, Mapping[int, Belief]]
    edited: frozenset[int] = frozenset()

    def said(self) -> Mapping[str, Mapping[int, str]]:
        """The answers alone."""
        return {s: {r: b.answer for r, b in own.items()} for s, own in self.beliefs.items()}

    def sample(self, seed: int) -> tuple[Belief, ...]:
        """Up to `TEMPLATES_EACH` of each subject's that the batch edits for others."""
        rng = random.Random(f"others/{seed}")
        chosen: list[Belief] = []
        for own in self.beliefs.values():
            near = [t for t in sorted(own) if t in self.edited]
            chosen += [own[t] for t in rng.sample(near, min(TEMPLATES_EACH, len(near)))]
        return tuple(chosen)


def companions(em: EditableModel, facts: Sequence[Fact], texts: Sequence[str], wide: int) -> list[str]:
    """Subjects of the same kinds that the text says the batch's own relations of, so many that a small batch
    has `wide` subjects with them. One fact alone cannot show which templates ask for its relation."""
    own = sorted({f.subject for f in facts})
    if len(own) >= wide:
        return []
    templates = batch_templates(facts)
    found = named(texts, [(t.before, t.after) for t in templates], own, LEAST_SUBJECTS)
    kinds = suited(em, templates, found) if found else ()
    asked: dict[str, str] = {}
    for i, s in enumerate(found):
        for t, row in zip(templates, kinds, strict=True):
            if row[i]:
                asked.setdefault(s, t.before + s + t.after)
    # "He was born in" is no subject: the model is not sure where
    sure = [b.subject for b in ask(em, [(p, s) for s, p in asked.items()]) if b.confidence >= CONFIDENT]
    return sure[: wide - len(own)]


def others(em: EditableModel, facts: Sequence[Fact], survey: Survey, texts: Sequence[str]) -> Others:
    """Other subjects of the same kinds that the texts name, `enough` of them at most."""
    subjects = named(texts, survey.templates, sorted({f.subject for f in facts}), enough(len(facts)))
    if not subjects:
        return Others({})
    edited = frozenset(survey.relation[t] for t in survey.own if t >= 0)
    about = [
        tuple(dict.fromkeys(b.subject for b, fits in zip(beliefs, row, strict=True) if fits))
        for beliefs, row in zip(survey.beliefs, survey.fits, strict=True)
    ]
    asked = [t for t in range(len(about)) if about[t]]
    if not asked:
        return Others({}, edited)
    kinds = Kinds(em, [Template(*survey.templates[t], about[t]) for t in asked], subjects)
    phrasings: dict[tuple[int, int], list[int]] = defaultdict(list)
    for place, t in enumerate(asked):
        for i, same in enumerate(kinds.near[place]):
            if same:
                phrasings[i, survey.relation[t]].append(place)
    first = _first(kinds, {key: own for key, own in phrasings.items() if key[1] in edited})
    # whoever has no edited relation shows nothing about one
    near = {i for i, _ in first}
    beside = {key: own for key, own in phrasings.items() if key[0] in near and key[1] not in edited}
    first |= _first(kinds, beside)
    order = {(subjects[i], relation): asked[first[i, relation]] for i, relation in sorted(first)}
    prompts = [(survey.templates[t][0] + s + survey.templates[t][1], s) for (s, _), t in order.items()]
    found: dict[str, dict[int, Belief]] = {}
    for (s, relation), belief in zip(order, ask(em, prompts), strict=True):
        if belief.confidence >= CONFIDENT:
            found.setdefault(s, {})[relation] = belief
    return Others(found, edited)


def _first(kinds: Kinds, phrasings: Mapping[tuple[int, int], Sequence[int]]) -> dict[tuple[int, int], int]:
    """Of each subject's phrasings of a relation, (subject, relation) -> templates, the first that fits; most
    often the very first does, so the others are not looked at before."""
    found: dict[tuple[int, int], int] = {}
    left = dict(phrasings)
    turn = 0
    while left:
        tried = [(places[turn], key[0]) for key, places in left.items()]
        for key, fits in zip(left, kinds.fit(tried), strict=True):
            if fits:
                found[key] = left[key][turn]
        turn += 1
        left = {key: places for key, places in left.items() if key not in found and turn < len(places)}
    return found
