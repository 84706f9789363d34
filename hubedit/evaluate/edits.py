"""What an edit did, by real greedy generation and by probability, before and after.

Metrics (names as in KnowEdit and in CounterFact; greedy text that begins with the whole answer, see
`hubedit.facts.answers.gives`; `exact` has the strict forms): success (the prompt gives the target),
generalisation (rephrasings give it), locality (answers to other prompts about the same subject begin with
the same word as before), neighbourhood (so do those about other subjects), portability (what follows from
the edit is answered). A metric without a prompt that tests it is absent, never zero. Each has a 95 %
interval (`hubedit.evaluate.bootstrap`), and so have their harmonic mean and the target's mean probability.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import exp
from typing import Any

from hubedit.evaluate.bootstrap import Interval, harmonic_interval, intervals
from hubedit.evaluate.coincident import apart
from hubedit.evaluate.reading import Reading, full_prompt
from hubedit.facts import Fact, Probe
from hubedit.facts.answers import clip, gives, mentions, normalise, says, unchanged

METRICS = ("success", "generalisation", "locality", "neighbourhood", "portability")
ANSWERED = ("success", "generalisation", "portability")

Marks = dict[str, list[list[bool]]]
"""By metric, for each fact whether each of its prompts is right."""


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
        """Of the metrics that were measured (`in_harmonic_mean`); None when fewer than two were."""
        names = in_harmonic_mean(self.counts, len(self.outcomes))
        values = [self.metrics[name] for name in names if name in self.metrics]
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


def compare(facts: Sequence[Fact], before: Reading, after: Reading, *, seed: int = 0) -> EditReport:
    """Outcomes and metrics from two readings of the same facts, without the probes that are worded as an
    edited prompt. Pure; `seed`: of the bootstrap."""
    counting, _ = apart(facts)
    found = marks(counting, before, after)
    cases = tuple(case for _, good, case in _judged(counting, before, after) if not good)
    outcomes = tuple(
        _outcome(fact, before, after, *good)
        for fact, good in zip(facts, found["success"], strict=True)
        if good  # not where the fact did not fit in context
    )
    counts = {name: sum(map(len, m)) for name, m in found.items() if any(m)}
    metrics = {name: sum(map(sum, found[name])) / count for name, count in counts.items()}
    counted = {name: found[name] for name in counts}
    between = intervals(counted, shares=counted, seed=seed)
    between |= intervals({"probability": [[o.probability_after] for o in outcomes]}, seed=seed)
    together = {name: counted[name] for name in in_harmonic_mean(counts, len(outcomes))}
    if len(together) > 1 and (pair := harmonic_interval(together, seed=seed)):
        between["harmonic_mean"] = pair
    return EditReport(outcomes, metrics, counts, between, cases)


def in_harmonic_mean(counts: Mapping[str, int], facts: int) -> list[str]:
    """The metrics that count in the harmonic mean of so many facts: those with at least a prompt for every
    tenth fact. Two stray prompts must not decide what a hundred facts come to."""
    return [name for name, count in counts.items() if 10 * count >= facts]


def marks(facts: Sequence[Fact], before: Reading, after: Reading) -> Marks:
    """Of each metric, whether each prompt of each fact is right."""
    found: Marks = {name: [[] for _ in facts] for name in METRICS}
    for number, good, case in _judged(facts, before, after):
        found[case.kind][number].append(good)
    return found


def _judged(facts: Sequence[Fact], before: Reading, after: Reading) -> Iterator[tuple[int, bool, Case]]:
    """Every prompt that was asked: the fact's number, whether an answer is given (or the text of before
    begun), and the prompt."""
    for number, fact in enumerate(facts):
        asked: list[tuple[str, str, Sequence[str]]] = [("success", fact.prompt, [fact.target])]
        asked += [("generalisation", prompt, [fact.target]) for prompt in fact.rephrase]
        asked += [(_room(fact, probe), probe.prompt, probe.answers) for probe in fact.locality]
        asked += [("portability", probe.prompt, probe.answers) for probe in fact.portability if probe.answers]
        for kind, prompt, answers in asked:
            old, new = before.text(fact, prompt), after.text(fact, prompt)
            if new is not None:
                good = gives(new, answers) if kind in ANSWERED else unchanged(old or "", new)
                yield number, good, Case(kind, fact, prompt, tuple(answers), old or "", new)


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


def exact(
    facts: Sequence[Fact], reading: Reading, before: Reading | None = None
) -> dict[str, list[list[float]]]:
    """The strict forms by metric, one group a fact, 1.0 or 0.0 for each prompt.

    Of `ANSWERED`: the first sentence is the answer, or one of its aliases, and nothing else
    (`hubedit.facts.answers.says`). Of the localities, with `before`: the whole continuation is the same.
    """
    values: dict[str, list[list[float]]] = {name: [[] for _ in facts] for name in METRICS}
    for number, fact in enumerate(facts):
        pairs: list[tuple[str, str, tuple[str, ...]]] = [("success", fact.prompt, (fact.target,))]
        pairs += [("generalisation", prompt, (fact.target,)) for prompt in fact.rephrase]
        pairs += [("portability", probe.prompt, probe.answers) for probe in fact.portability if probe.answers]
        for name, prompt, answers in pairs:
            if (text := reading.text(fact, prompt)) is not None:
                values[name][number].append(float(says(text, answers)))
        for probe in fact.locality:
            old = before.text(fact, probe.prompt) if before is not None else None
            new = reading.text(fact, probe.prompt)
            if old is not None and new is not None:
                values[_room(fact, probe)][number].append(float(normalise(old) == normalise(new)))
    return {name: groups for name, groups in values.items() if name in ANSWERED or any(groups)}


def _outcome(fact: Fact, before: Reading, after: Reading, success: bool) -> Outcome:
    old, new = (r.scored[full_prompt(fact, fact.prompt, r.in_context), fact.target] for r in (before, after))
    was, now = (clip(r.texts[full_prompt(fact, fact.prompt, r.in_context)]) for r in (before, after))
    return Outcome(fact, was, now, exp(old.logp), exp(new.logp), old.rank, new.rank, success)


def _room(fact: Fact, probe: Probe) -> str:
    """Same subject or another one: the prompt's own words decide."""
    return "locality" if mentions(probe.prompt, fact.subject) else "neighbourhood"
