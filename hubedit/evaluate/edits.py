"""What an edit did, by real greedy generation and by probability, before and after.

Metrics (names as in KnowEdit and in CounterFact; greedy text that begins with the whole answer, see
`hubedit.facts.answers.gives`; `exact` counts those that say nothing else): success (the prompt gives the
target), generalisation (rephrasings give it), locality (other prompts about the same subject are
unchanged), neighbourhood (prompts about other subjects are unchanged), portability (what follows from
the edit is answered). A metric without a prompt that tests it is absent, never zero. Each has a 95 %
interval (`hubedit.evaluate.bootstrap`), and so have their harmonic mean and the target's mean probability.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import exp
from typing import Any

from hubedit.evaluate.bootstrap import Interval, harmonic_interval, intervals
from hubedit.facts import Fact, Probe
from hubedit.facts.answers import clip, gives, mentions, says, unchanged
from hubedit.model.editable import EditableModel
from hubedit.model.generate import greedy
from hubedit.model.join import joins
from hubedit.model.score import Score, scores
from hubedit.model.tokens import continuation

METRICS = ("success", "generalisation", "locality", "neighbourhood", "portability")
ANSWERED = ("success", "generalisation", "portability")

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
class Case:
    """A prompt that an edit got wrong: `kind` is the metric, `answers` what it should say after the edit
    (for the two localities: what is known to be right), `before` and `after` all that the models say."""

    kind: str
    fact: Fact
    prompt: str
    answers: tuple[str, ...]
    before: str
    after: str

    def to_json(self) -> dict[str, Any]:
        """As quoted in `report.json`: first sentences."""
        texts = {"before": clip(self.before), "after": clip(self.after)}
        return {"fact": self.fact.id or self.fact.prompt, "prompt": self.prompt, **texts}


@dataclass(frozen=True)
class EditReport:
    """`metrics`: share 0..1 by name, over `counts[name]` prompts; `intervals`: 95 % by name, also of
    "harmonic_mean" and of the target's "probability"; `cases`: every prompt that counts against a metric."""

    outcomes: tuple[Outcome, ...]
    metrics: dict[str, float]
    counts: dict[str, int]
    intervals: dict[str, Interval] = field(default_factory=dict)
    cases: tuple[Case, ...] = ()

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

    @property
    def relations(self) -> dict[str, dict[str, float | int]]:
        """Success by relation, which is the prompt with `{}` for its subject: {"success", "n"}."""
        groups: dict[str, list[bool]] = {}
        for o in self.outcomes:
            groups.setdefault("{}".join(o.fact.template), []).append(o.success)
        return {name: {"success": sum(g) / len(g), "n": len(g)} for name, g in groups.items()}

    @property
    def damage(self) -> dict[str, list[dict[str, Any]]]:
        """Answers that should have stayed and did not, about the same subject and about others, where such
        prompts were asked at all."""
        kinds = {"flipped_same_subject": "locality", "flipped_neighbours": "neighbourhood"}
        return {
            name: [c.to_json() for c in self.cases if c.kind == kind]
            for name, kind in kinds.items()
            if kind in self.metrics
        }

    def to_json(self) -> dict[str, Any]:
        """As stored in `report.json`."""
        extra: dict[str, Any] = {
            "intervals": {name: list(pair) for name, pair in self.intervals.items()},
            "damage": self.damage,
        }
        return {
            "metrics": self.metrics,
            **{name: value for name, value in extra.items() if value},
            "counts": self.counts,
            "harmonic_mean": self.harmonic_mean,
            "relations": self.relations,
            "probability_shift": [[o.probability_before, o.probability_after] for o in self.outcomes],
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
    for fact in facts:
        asked = (*fact.rephrase, *(p.prompt for p in (*fact.locality, *fact.portability)))
        prompts |= dict.fromkeys((fact.prompt, *asked) if probes else (fact.prompt,))
    texts = greedy(em, list(prompts), new_tokens(em, facts, probes=probes))
    found = scores(em, [f.prompt for f in facts], [f.target for f in facts], joins=joins(facts))
    return Reading(dict(zip(prompts, texts, strict=True)), tuple(found))


def new_tokens(em: EditableModel, facts: Sequence[Fact], *, probes: bool = True) -> int:
    """How many tokens are generated after each prompt: the longest answer and a few more."""
    target = answer = 1

    def length(prompt: str, text: str, join: str | None = None) -> int:
        return len(continuation(em.tokenizer, prompt, text, join)) if text.strip() else 0

    for fact in facts:
        target = max(target, length(fact.prompt, fact.target, fact.join))
        for probe in (*fact.locality, *fact.portability) if probes else ():
            answer = max(answer, *(length(probe.prompt, text) for text in probe.answers), 0)
    # a target must fit whatever its length; one endless alias of a probe must not slow everything down
    return max(target, min(answer, MOST_ANSWER_TOKENS)) + 4


def compare(facts: Sequence[Fact], before: Reading, after: Reading, *, seed: int = 0) -> EditReport:
    """Outcomes and metrics from two readings of the same facts. Pure; `seed`: of the bootstrap."""
    outcomes: list[Outcome] = []
    cases: list[Case] = []
    marks: dict[str, list[list[bool]]] = {name: [[] for _ in facts] for name in METRICS}

    def note(kind: str, number: int, prompt: str, answers: Sequence[str], good: bool) -> None:
        marks[kind][number].append(good)
        if not good:
            texts = before.texts.get(prompt, ""), after.texts[prompt]
            cases.append(Case(kind, facts[number], prompt, tuple(answers), *texts))

    for number, (fact, old, new) in enumerate(zip(facts, before.targets, after.targets, strict=True)):
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
        note("success", number, fact.prompt, [fact.target], success)
        for prompt in fact.rephrase:
            if prompt in after.texts:
                good = gives(after.texts[prompt], [fact.target])
                note("generalisation", number, prompt, [fact.target], good)
        for probe in fact.locality:
            if probe.prompt in after.texts:
                kept = unchanged(before.texts[probe.prompt], after.texts[probe.prompt], probe.answers)
                note(_room(fact, probe), number, probe.prompt, probe.answers, kept)
        for probe in fact.portability:
            if probe.answers and probe.prompt in after.texts:
                good = gives(after.texts[probe.prompt], probe.answers)
                note("portability", number, probe.prompt, probe.answers, good)
    counts = {name: sum(map(len, m)) for name, m in marks.items() if any(m)}
    metrics = {name: sum(map(sum, marks[name])) / count for name, count in counts.items()}
    asked = {name: marks[name] for name in counts}
    between = intervals(asked, shares=asked, seed=seed)
    between |= intervals({"probability": [[o.probability_after] for o in outcomes]}, seed=seed)
    if len(asked) > 1 and (pair := harmonic_interval(asked, seed=seed)):
        between["harmonic_mean"] = pair
    return EditReport(tuple(outcomes), metrics, counts, between, tuple(cases))


def answered(facts: Sequence[Fact], reading: Reading, *, seed: int = 0) -> EditReport:
    """What one model alone answers: success, generalisation and portability.

    That a model agrees with itself is no measurement, so both localities are absent.
    """
    whole = compare(facts, reading, reading, seed=seed)
    own = [name for name in ANSWERED if name in whole.metrics]
    kept = [*own, "probability"]
    return EditReport(
        whole.outcomes,
        {name: whole.metrics[name] for name in own},
        {name: whole.counts[name] for name in own},
        {name: whole.intervals[name] for name in kept if name in whole.intervals},
    )


def exact(facts: Sequence[Fact], reading: Reading) -> dict[str, list[list[float]]]:
    """By metric of `ANSWERED`, one group a fact: 1.0 for each prompt whose first sentence is the answer, or
    one of its aliases, and nothing else (`hubedit.facts.answers.says`); 0.0 for the others."""
    values: dict[str, list[list[float]]] = {name: [] for name in ANSWERED}
    for fact in facts:
        asked: dict[str, list[tuple[str, tuple[str, ...]]]] = {
            "success": [(fact.prompt, (fact.target,))],
            "generalisation": [(prompt, (fact.target,)) for prompt in fact.rephrase],
            "portability": [(probe.prompt, probe.answers) for probe in fact.portability if probe.answers],
        }
        for name, pairs in asked.items():
            known = [(reading.texts[prompt], answers) for prompt, answers in pairs if prompt in reading.texts]
            values[name].append([float(says(text, answers)) for text, answers in known])
    return values


def _room(fact: Fact, probe: Probe) -> str:
    """Same subject or another one: the prompt's own words decide."""
    return "locality" if mentions(probe.prompt, fact.subject) else "neighbourhood"
