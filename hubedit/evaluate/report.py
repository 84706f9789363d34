"""Measurements as the content of report.json: only what was measured, each with its n and interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

import numpy as np

from hubedit.evaluate.bootstrap import harmonic_interval, intervals, mean, method
from hubedit.evaluate.counterfact import SCORES, counterfact, harmonic
from hubedit.evaluate.edits import EditReport, Reading, answered, compare, exact
from hubedit.evaluate.harness import tasks_json
from hubedit.evaluate.knowedit import Values, knowedit
from hubedit.evaluate.measure import Measured
from hubedit.facts import Fact

SIDES = ("before", "after")


def report(
    facts: Sequence[Fact], before: Measured, after: Measured | None = None, *, seed: int = 0
) -> dict[str, Any]:
    """Content of report.json for the model alone, or for it and one edited side. Pure; `seed`: of the
    bootstrap. Damage that needs the model is added by `hubedit.evaluate.damage`."""
    if after is None:
        own = answered(facts, before.reading, seed=seed)
        data = _before(own) | {"counts": own.counts}
        data |= {"facts": [_alone(o) for o in own.to_json()["facts"]]}
        data["exact_match"] = _table(exact(facts, before.reading), None, seed)
    else:
        whole = compare(facts, before.reading, after.reading, seed=seed)
        data = generated(facts, before.reading, after.reading, whole, seed=seed)
    old, new = before.forced, after.forced if after is not None else None
    data["teacher_forced"] = _table(
        knowedit(facts, old), knowedit(facts, new, old) if new is not None else None, seed
    )
    data["counterfact"] = _table(
        counterfact(facts, old), counterfact(facts, new) if new is not None else None, seed
    )
    data["fluency"] = _fluency(before, after, seed)
    last = after or before
    if last.drift is not None:
        data |= last.drift.to_json(seed)
    data["interval_method"] = method(seed)
    data["tasks"] = tasks_json(before.tasks, after.tasks if after is not None else {})
    data["notes"] = notes(facts, data)
    return {key: value for key, value in data.items() if value not in ({}, [], None)}


def generated(
    facts: Sequence[Fact], before: Reading, after: Reading, whole: EditReport, *, seed: int = 0
) -> dict[str, Any]:
    """The part of report.json that greedy generation fills. `whole`: `compare` of the two readings."""
    own = answered(facts, before, seed=seed)
    table = _table(exact(facts, before), exact(facts, after), seed)
    told = {"exact_match": table, "interval_method": method(seed), "notes": lacking(facts)}
    return {**_before(own), **whole.to_json(), **told}


def _before(own: EditReport) -> dict[str, Any]:
    between = {name: list(pair) for name, pair in own.intervals.items()}
    return {"metrics_before": own.metrics, "intervals_before": between}


def lacking(facts: Sequence[Fact]) -> list[str]:
    """For each metric of generation that fewer records count for than there are: how many, and what the
    others lack."""
    without = {
        "rephrasings": sum(1 for f in facts if not f.rephrase),
        "locality prompts": sum(1 for f in facts if not f.locality),
        "portability prompts with an answer": sum(
            1 for f in facts if not any(p.answers for p in f.portability)
        ),
    }
    return [f"{n} of {len(facts)} records have no {what}" for what, n in without.items() if n > 0]


def notes(facts: Sequence[Fact], data: Mapping[str, Any]) -> list[str]:
    """`lacking` for every metric, and of how many records the fluency is."""
    total, found = len(facts), lacking(facts)
    if old := sum(1 for f in facts if not f.ground_truth):
        found.append(f"{old} of {total} records have no old answer (ground_truth)")
    unanswered = sum(1 for f in facts for p in f.locality if not p.answers)
    if unanswered:
        found.append(
            f"locality prompts without a known answer: {unanswered}; they count in locality and "
            "neighbourhood, not in the teacher-forced metrics"
        )
    texts = data.get("fluency", {}).get("n")
    if texts is not None and texts < total:
        found.append(f"fluency is that of the first {texts} records")
    return found


def _alone(fact: dict[str, Any]) -> dict[str, Any]:
    """A fact's outcome without what only an edit gives."""
    return {key: value for key, value in fact.items() if key != "after" and not key.endswith("_after")}


def _table(before: Values, after: Values | None, seed: int) -> dict[str, Any]:
    """{"before", "after"}: values; "n": records that count; "intervals", "intervals_before"."""
    sides = {"before": before} | ({"after": after} if after is not None else {})
    table: dict[str, Any] = {}
    for side, values in sides.items():
        means = {
            name: m for name, groups in values.items() if (m := mean(groups)) is not None and isfinite(m)
        }
        shares = [name for name in values if not name.endswith("_magnitude")]
        pairs = intervals(values, shares=shares, seed=seed)
        between = {name: list(pair) for name, pair in pairs.items() if name in means}
        score, pair = _score(values, means, seed)
        if score is not None:
            means["score"] = score
            if pair is not None:
                between["score"] = pair
        if not means:
            continue
        table[side] = nested(means)
        table["intervals_before" if side == "before" else "intervals"] = nested(between)
        n = {name: sum(map(len, groups)) for name, groups in values.items() if name in means}
        table["n"] = _merged(table.get("n", {}), nested(n))
    return {key: value for key, value in table.items() if value}


def _score(values: Values, means: Mapping[str, float], seed: int) -> tuple[float | None, list[float] | None]:
    """CounterFact's harmonic mean and its interval, where all three scores were measured."""
    if any(name not in means for name in SCORES):
        return None, None
    whole = harmonic({name: np.array([means[name]]) for name in SCORES})
    assert whole is not None
    pair = harmonic_interval({name: values[name] for name in SCORES}, seed=seed)
    return float(whole[0]), list(pair) if pair is not None else None


def _fluency(before: Measured, after: Measured | None, seed: int) -> dict[str, Any]:
    """Weighted n-gram entropy in bits: means, interval, and over how many texts."""
    data: dict[str, Any] = {}
    for side, measured in zip(SIDES, (before, after), strict=True):
        if measured is None or not measured.fluency:
            continue
        groups = [[value] for value in measured.fluency]
        data |= {side: mean(groups), "n": len(groups)}
        between = intervals({"fluency": groups}, seed=seed).get("fluency")
        if between is not None:
            data["interval" if side == "after" else "interval_before"] = list(between)
    return data


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """{"portability/Reasoning": 1} as {"portability": {"Reasoning": 1}}."""
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        outer, slash, inner = name.partition("/")
        if slash:
            tree.setdefault(outer, {})[inner] = value
        else:
            tree[name] = value
    return tree


def _merged(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    """Two trees as one; the second wins."""
    both = dict(a)
    for name, value in b.items():
        old = both.get(name)
        both[name] = _merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return both
