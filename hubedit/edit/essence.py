"""What the model says about the edited subjects otherwise, and which of it an edit must not change.

The subject's last token cannot see the relation, so an edit that only looks at its own prompt
overwrites the whole subject. Essence prompts (MEMIT knows one, "{subject} is a") keep the rest. Ours
come from the batch, every fact's prompt is a template, and from the model's own text (`templates.py`).
Every template is asked of every subject of its kind, and the model's own answers tell what it asks:

- a template that mostly gets the same answers as the edited one is a paraphrase of it, and must give
  the new answer too;
- a template whose answer follows from the edited one's (subjects that agree on the one agree on the
  other: born in Lyon, citizen of France; or the model says so of Lyon, `hops.py`) must change along with
  it, and preserving it would cost portability (docs/experiments.md);
- what remains, and is answered with confidence, is preserved.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations

from hubedit.edit.kinds import suited
from hubedit.edit.templates import ANSWER_TOKENS, Template
from hubedit.facts import Fact
from hubedit.facts.answers import normalise
from hubedit.model.editable import EditableModel
from hubedit.model.generate import answers

GENERIC = (("", " is a"), ("", " is"), ("", ""))
"""Prompts that fit any subject; only the very next token is preserved."""

MOST_TEMPLATES = 64
AGREED = 0.5
"""How far subjects that agree on one answer must agree on another, from chance (0) to always (1)."""
LEAST_PAIRS = 5
"""Pairs of subjects that it takes to see that."""
CONFIDENT = 0.3
"""Mean token probability from which an answer counts as the model's belief."""


@dataclass(frozen=True)
class Belief:
    """What the model answers to one template asked of one subject."""

    prompt: str
    subject: str
    answer: str
    confidence: float


@dataclass(frozen=True)
class Survey:
    """Templates asked of every fact's subject that they fit: `beliefs[t][n]`, an empty answer where they do
    not; `own[n]`: fact n's template, or -1; `fits[t][n]`: whether the template is about subjects of this
    kind (empty: all are); `others`: answers of other subjects, by subject and relation; `bridged`: relations,
    and those that follow from them by what the model says about the answers (`hops.py`); `before[n]`: the
    templates of facts about fact n's subject that were edited before, and stay. The templates of
    the batch come first. After the facts come companions, subjects that no fact edits, so that a small
    batch shows too which templates ask the same."""

    templates: tuple[tuple[str, str], ...]
    beliefs: tuple[tuple[Belief, ...], ...]
    own: tuple[int, ...]
    fits: tuple[tuple[bool, ...], ...] = ()
    others: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    bridged: frozenset[tuple[int, int]] = frozenset()
    before: Mapping[int, frozenset[int]] = field(default_factory=dict)

    @cached_property
    def _edited(self) -> Mapping[str, frozenset[int]]:
        """The templates that facts of the batch edit, by subject."""
        found: dict[str, set[int]] = defaultdict(set)
        for n, belief in enumerate(self.beliefs[0] if self.beliefs else ()):
            found[belief.subject].add(self.own[n])
        return {subject: frozenset(own) for subject, own in found.items()}

    def edited(self, fact: int) -> frozenset[int]:
        """The templates of all facts about this fact's subject; -1 among them for one that was not asked."""
        own = self._edited[self.beliefs[0][fact].subject] if self.beliefs else frozenset()
        return own | self.before.get(fact, frozenset())

    @cached_property
    def _same(self) -> dict[tuple[int, int], bool]:
        """What `same` has found: every fact of a relation asks the same."""
        return {}

    @cached_property
    def _follows(self) -> dict[tuple[int, int], bool]:
        """And what `follows` has, relation by relation."""
        return {}

    @cached_property
    def _known(self) -> dict[int, dict[str, str]]:
        """And what `known` has."""
        return {}

    @cached_property
    def relation(self) -> tuple[int, ...]:
        """For each template the first one that asks for the same relation."""
        first: list[int] = []
        for t in range(len(self.templates)):
            first.append(next((u for u in range(t) if first[u] == u and self.same(t, u)), t))
        return tuple(first)

    def unrelated(self, fact: int) -> list[int]:
        """Templates of relations that no fact about the subject edits, nor moves, most confident first."""
        edited = self.edited(fact)
        # what another fact of the batch changes about the same subject, in any words, is not to be kept
        # either; what a fact edited before has brought is
        moving = self._edited[self.beliefs[0][fact].subject] if self.beliefs else ()
        keep = []
        for t in range(len(self.templates)):
            belief = self.beliefs[t][fact]
            if t in edited or not belief.answer or belief.confidence < CONFIDENT:
                continue
            if not any(e >= 0 and self._moves(e, t, fact) for e in moving):
                keep.append(t)
        return sorted(keep, key=lambda t: -self.beliefs[t][fact].confidence)

    def _moves(self, edited: int, t: int, fact: int) -> bool:
        """Whether template t cannot keep its answer when the fact's subject gets another one to `edited`."""
        return (
            self._said[t][fact] == self._said[edited][fact] or self.same(edited, t) or self.follows(edited, t)
        )

    def paraphrases(self, fact: int) -> list[int]:
        """Other templates of the fact's own relation, by the model's answers."""
        own = self.own[fact]
        # another fact of the batch may give the same subject another target there
        edited = self.edited(fact)
        return [
            t
            for t in range(len(self.templates))
            if own >= 0 and t not in edited and (not self.fits or self.fits[t][fact]) and self.same(own, t)
        ]

    def same(self, a: int, b: int) -> bool:
        """Whether two templates mostly get the same answer: they ask for the same relation."""
        key = (a, b)
        if key not in self._same:
            pairs = self._pairs(a, b)
            equal = sum(x == y and x != "" for x, y in pairs)
            self._same[key] = equal >= 0.5 * max(len(pairs), 1)
        return self._same[key]

    def follows(self, cause: int, effect: int) -> bool:
        """Whether the answers to `effect` come from those to `cause`: the model says so of the answers
        themselves, or subjects that agree on the one agree on the other far more often than any two do."""
        key = self.relation[cause], self.relation[effect]
        if key in self.bridged:
            return True
        if key not in self._follows:
            agreed = agreement(self.pairs(*key))
            self._follows[key] = agreed is not None and agreed > AGREED
        return self._follows[key]

    def pairs(self, cause: int, effect: int) -> list[tuple[str, str]]:
        """The answers to two relations, normalised, of every subject that has both."""
        after = self.known(effect)
        return [(normalise(a), normalise(after[s])) for s, a in self.known(cause).items() if s in after]

    def known(self, relation: int) -> Mapping[str, str]:
        """Confident answers by subject, in the relation's first phrasing that fits; of others too."""
        if relation not in self._known:
            found: dict[str, str] = {}
            for t, first in enumerate(self.relation):
                for n, b in enumerate(self.beliefs[t] if first == relation else ()):
                    if b.answer and b.confidence >= CONFIDENT and (not self.fits or self.fits[t][n]):
                        found.setdefault(b.subject, b.answer)
            for subject, said in self.others.items():
                if relation in said:
                    found.setdefault(subject, said[relation])
            self._known[relation] = found
        return self._known[relation]

    def varied(self, templates: Sequence[int]) -> list[int]:
        """One of every relation before a second of any."""
        first: list[int] = []
        for t in templates:
            if all(self.relation[t] != self.relation[u] for u in first):
                first.append(t)
        return [*first, *(t for t in templates if t not in first)]

    @cached_property
    def _said(self) -> list[list[str]]:
        return [[normalise(belief.answer) for belief in row] for row in self.beliefs]

    def _pairs(self, a: int, b: int) -> list[tuple[str, str]]:
        """The answers of both templates, subject by subject, where both are about its kind."""
        return [
            pair
            for n, pair in enumerate(zip(self._said[a], self._said[b], strict=True))
            if not self.fits or (self.fits[a][n] and self.fits[b][n])
        ]


def agreement(pairs: Sequence[tuple[str, str]]) -> float | None:
    """How much more those who share the first answer share the second than any two do: from 0 or less, not
    at all, to 1, always. None where too few share the first to tell."""
    groups: dict[str, list[str]] = defaultdict(list)
    for x, y in pairs:
        groups[x].append(y)
    within = [x == y for group in groups.values() for x, y in combinations(group[:20], 2)]
    if len(within) < LEAST_PAIRS:
        return None
    counts = Counter(y for _, y in pairs)
    total = sum(counts.values())
    chance = sum(c * (c - 1) for c in counts.values()) / max(total * (total - 1), 1)
    return (sum(within) / len(within) - chance) / (1 - chance) if chance < 1 else 0.0


def survey(
    em: EditableModel,
    facts: Sequence[Fact],
    mined: Sequence[Template] = (),
    companions: Sequence[str] = (),
    older: Sequence[Fact] = (),
) -> Survey:
    """Asks the batch's most frequent templates, those of `older` facts about its subjects, and the `mined`
    ones, of the batch's subjects that they fit, and of `companions`, by greedy generation."""
    subjects = [*(f.subject for f in facts), *companions]
    templates = batch_templates(facts)
    for more in (batch_templates(older), mined):
        held = {(t.before, t.after) for t in templates}
        templates += [t for t in more if (t.before, t.after) not in held]
    place = {(t.before, t.after): i for i, t in enumerate(templates)}
    own = (*(place.get(f.template, -1) for f in facts), *(-1 for _ in companions))
    fits = _fits(em, subjects, templates, own)
    n = len(subjects)
    prompts = [(t.before + s + t.after, s) for t in templates for s in subjects]
    asked = [i for i in range(len(prompts)) if fits[i // n][i % n]]
    said = dict(zip(asked, ask(em, [prompts[i] for i in asked]), strict=True))
    beliefs = tuple(
        tuple(said.get(i) or Belief(*prompts[i], "", 0.0) for i in range(t * n, (t + 1) * n))
        for t in range(len(templates))
    )
    return Survey(tuple(place), beliefs, own, fits)


def ask(em: EditableModel, prompts: Sequence[tuple[str, str]]) -> list[Belief]:
    """What the model answers to prompts (text, subject), and how sure it is."""
    said = answers(em, [prompt for prompt, _ in prompts], ANSWER_TOKENS)
    return [Belief(*asked, a.text, a.confidence) for asked, a in zip(prompts, said, strict=True)]


def batch_templates(facts: Sequence[Fact]) -> list[Template]:
    """The batch's most frequent templates, each about the subjects it is asked of."""
    about: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for fact in facts:
        about[fact.template].setdefault(fact.subject)
    counts = Counter(f.template for f in facts)
    return [Template(*t, tuple(about[t])) for t, _ in counts.most_common(MOST_TEMPLATES)]


def _fits(
    em: EditableModel, subjects: Sequence[str], templates: Sequence[Template], own: Sequence[int]
) -> tuple[tuple[bool, ...], ...]:
    """[t][n]: whether template t is about subjects like the n-th; a fact's own template is, by its word."""
    different = list(dict.fromkeys(subjects))
    place = {s: i for i, s in enumerate(different)}
    kinds = suited(em, templates, different)
    return tuple(
        tuple(row[place[s]] or own[n] == t for n, s in enumerate(subjects)) for t, row in enumerate(kinds)
    )


def choose(found: Survey, facts: Sequence[Fact], count: int, seed: int) -> tuple[tuple[Belief, ...], ...]:
    """For each fact up to `count` unrelated beliefs to preserve, drawn with the seed: one of every relation
    before a second of any."""
    chosen = []
    for n, fact in enumerate(facts):
        drawn = found.unrelated(n)
        random.Random(f"{seed}/{n}/{fact.subject}").shuffle(drawn)
        chosen.append(tuple(found.beliefs[t][n] for t in found.varied(drawn)[:count]))
    return tuple(chosen)
