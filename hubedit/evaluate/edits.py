"""What an edit did, by real greedy generation and by probability, before and after.

Metrics (names as in KnowEdit and in CounterFact; greedy exact match of the whole answer, see
`hubedit.facts.answers`): success (the prompt gives the target), generalisation (rephrasings give it),
locality (other prompts about the same subject are unchanged), neighbourhood (prompts about other
subjects are unchanged), portability (what follows from the edit is answered). A metric without a
prompt that tests it is absent, never zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp
from typing import Any

from hubedit.facts import Fact, Probe
from hubedit.facts.answers import clip, gives, mentions, unchanged
from hubedit.model.editable import EditableModel
from hubedit.model.generate import greedy
from hubedit.model.score import Score, scores
from hubedit.model.tokens import continuation

METRICS = ("success", "generalisation", "locality", "neighbourhood", "portability")

MOST_ANSWER_TOKENS = 44
"""Longer answers of probes than this are not waited for."""


@dataclass(frozen=True)
class Reading:
    """What a model says: generated text by prompt, and the score of each fact's target by index."""

    texts: dict[str, str]
    targets: tuple[Score, ...]


@dataclass(frozen=True)
class Outcome:
    """One fact, before and after. `before`, `after`: the first sentence the model generates;
    `probability_*`: of the target, the geometric mean over its tokens; `rank_*`: of its first token."""

    fact: Fact
    before: str
    after: str
    probability_before: float
    probability_after: float
    rank_before: int
    rank_after: int
    success: bool


@dataclass(frozen=True)
class EditReport:
    """`metrics`: share 0..1 by name, over `counts[name]` prompts."""

    outcomes: tuple[Outcome, ...]
    metrics: dict[str, float]
    counts: dict[str, int]

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """Facts whose prompt does not give the target."""
        return tuple(o for o in self.outcomes if not o.success)

    @property
    def harmonic_mean(self) -> float | None:
        """Of the metrics that were measured; None when fewer than two were."""
        values = list(self.metrics.values())
        if len(values) < 2:
            return None
        return len(values) / sum(1 / v for v in values) if min(values) > 0 else 0.0

    def to_json(self) -> dict[str, Any]:
        """As stored in `report.json`."""
        return {
            "metrics": self.metrics,
            "counts": self.counts,
            "harmonic_mean": self.harmonic_mean,
            "facts": [
                {
                    "id": o.fact.id,
                    "prompt": o.fact.prompt,
                    "subject": o.fact.subject,
                    "target": o.fact.target,
                    "before": o.before,
                    "after": o.after,
                    "probability_before": o.probability_before,
                    "probability_after": o.probability_after,
                    "rank_before": o.rank_before,
                    "rank_after": o.rank_after,
                    "success": o.success,
                }
                for o in self.outcomes
            ],
        }


def read(em: EditableModel, facts: Sequence[Fact], *, probes: bool = True) -> Reading:
    """Generates for every prompt of the facts (with `probes`: rephrasings, locality and portability too).

    Call it inside `applied` to read the edited model.
    """
    prompts: dict[str, None] = {}
    target = answer = 1

    def length(prompt: str, text: str) -> int:
        return len(continuation(em.tokenizer, prompt, text)) if text.strip() else 0

    for fact in facts:
        prompts[fact.prompt] = None
        target = max(target, length(fact.prompt, fact.target))
        if probes:
            for probe in (*fact.locality, *fact.portability):
                answer = max(answer, *(length(probe.prompt, text) for text in probe.answers), 0)
                prompts[probe.prompt] = None
            prompts.update(dict.fromkeys(fact.rephrase))
    # a target must fit whatever its length; one endless alias of a probe must not slow everything down
    texts = greedy(em, list(prompts), max(target, min(answer, MOST_ANSWER_TOKENS)) + 4)
    found = scores(em, [f.prompt for f in facts], [f.target for f in facts])
    return Reading(dict(zip(prompts, texts, strict=True)), tuple(found))


def compare(facts: Sequence[Fact], before: Reading, after: Reading) -> EditReport:
    """Outcomes and metrics from two readings of the same facts. Pure."""
    outcomes = []
    marks: dict[str, list[bool]] = {name: [] for name in METRICS}
    for fact, old, new in zip(facts, before.targets, after.targets, strict=True):
        said = after.texts[fact.prompt]
        success = gives(said, [fact.target])
        outcomes.append(
            Outcome(
                fact,
                clip(before.texts[fact.prompt]),
                clip(said),
                exp(old.logp),
                exp(new.logp),
                old.rank,
                new.rank,
                success,
            )
        )
        marks["success"].append(success)
        marks["generalisation"] += [
            gives(after.texts[p], [fact.target]) for p in fact.rephrase if p in after.texts
        ]
        for probe in fact.locality:
            if probe.prompt in after.texts:
                kept = unchanged(before.texts[probe.prompt], after.texts[probe.prompt], probe.answers)
                marks[_room(fact, probe)].append(kept)
        marks["portability"] += [
            gives(after.texts[p.prompt], p.answers)
            for p in fact.portability
            if p.answers and p.prompt in after.texts
        ]
    metrics = {name: sum(m) / len(m) for name, m in marks.items() if m}
    return EditReport(tuple(outcomes), metrics, {name: len(m) for name, m in marks.items() if m})


def _room(fact: Fact, probe: Probe) -> str:
    """Same subject or another one: the prompt's own words decide."""
    return "locality" if mentions(probe.prompt, fact.subject) else "neighbourhood"
