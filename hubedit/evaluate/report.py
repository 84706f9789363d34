"""Measurements as the content of report.json: only what was measured, each with its n and interval."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any

import numpy as np

from hubedit.evaluate.automatic import automatic_values
from hubedit.evaluate.bootstrap import harmonic_interval, intervals, mean, method
from hubedit.evaluate.bystanders import LEAST
from hubedit.evaluate.coincident import apart
from hubedit.evaluate.counterfact import SCORES, counterfact, harmonic
from hubedit.evaluate.edits import EditReport, answered, compare, exact
from hubedit.evaluate.forms import form_values
from hubedit.evaluate.harness import tasks_json
from hubedit.evaluate.judge import Case
from hubedit.evaluate.knowedit import Values, knowedit
from hubedit.evaluate.measure import Measured
from hubedit.evaluate.reading import Reading
from hubedit.facts import Fact

_QUOTED = 10  # prompts that a report quotes
SIDES = ("before", "after")


def report(
    facts: Sequence[Fact],
    before: Measured,
    after: Measured | None = None,
    *,
    bystanders: Sequence[Fact] = (),
    right: Mapping[Case, bool] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Content of report.json for the model alone, or for it and one edited side. Pure; `bystanders`: those
    that were asked; `right`: a judge's verdicts; `seed`: of the bootstrap. Damage that needs the model is
    added by `hubedit.evaluate.damage`."""
    facts, coincident = apart(facts)
    own = answered(facts, before.reading, seed=seed)
    data: dict[str, Any] = {"metrics_before": own.metrics, "intervals_before": _pairs(own)}
    if after is None:
        data |= {"counts": own.counts, "facts": [_alone(o) for o in own.to_json()["facts"]]}
    else:
        data |= compare(facts, before.reading, after.reading, seed=seed).to_json()
        if after.bystanders:
            data["bystanders"] = _bystanders(after.bystanders, seed)
            lost = [f.prompt for f, right in zip(bystanders, after.bystanders, strict=True) if not right]
            data["damage"] = {**data.get("damage", {}), "lost_bystanders": lost}
    readings = {"before": before.reading}
    sides = {"before": (before.forms, before.automatic, False)}
    if before.context is not None and facts:
        in_context = compare(facts, before.reading, before.context, seed=seed)
        data["in_context"] = {"metrics": in_context.metrics, "harmonic_mean": in_context.harmonic_mean}
        data["in_context"] |= {"counts": in_context.counts, "intervals": _pairs(in_context)}
        readings["in_context"] = before.context
        sides["in_context"] = before.context_forms, before.context_automatic, True
    if after is not None:
        readings["after"] = after.reading
        sides["after"] = after.forms, after.automatic, False
    first = before.reading
    tables: dict[str, Callable[[Reading], Values]] = {
        "exact_match": lambda reading: exact(facts, reading, None if reading is first else first),
        "teacher_forced": lambda reading: knowedit(facts, reading, None if reading is first else first),
        "counterfact": lambda reading: counterfact(facts, reading),
    }
    for name, values in tables.items():
        data[name] = _table({side: values(reading) for side, reading in readings.items()}, seed)
    data["forms"] = _table(
        {
            side: form_values(facts, forms, None if side == "before" else before.forms, right)
            for side, (forms, _, _) in sides.items()
        },
        seed,
    )
    data["automatic"] = _table(
        {
            side: automatic_values(facts, texts, in_context=context)
            for side, (_, texts, context) in sides.items()
        },
        seed,
    )
    data["fluency"] = _fluency(before, after, seed)
    last = after or before
    data |= last.drift.to_json(seed) if last.drift is not None else {}
    data["real_text"] = last.real.to_json(seed) if last.real is not None else {}
    data["interval_method"] = method(seed)
    data["tasks"] = tasks_json(before.tasks, after.tasks if after is not None else {})
    data["notes"] = notes(facts, data)
    if coincident:
        data["coincident"] = {"n": len(coincident), "prompts": coincident[:_QUOTED]}
        data["notes"].append(
            f"probes worded as a prompt that is edited or preserved: {len(coincident)}; no figure counts them"
        )
    return {key: value for key, value in data.items() if value not in ({}, [], None)}


def _pairs(report: EditReport) -> dict[str, list[float]]:
    return {name: list(pair) for name, pair in report.intervals.items()}


def _bystanders(held: Sequence[bool], seed: int) -> dict[str, Any]:
    """Of the facts that were known and not edited, the share that still gets its true answer."""
    values = {"bystanders": [[float(right)] for right in held]}
    data: dict[str, Any] = {"before": 1.0, "after": sum(held) / len(held), "n": len(held)}
    pair = intervals(values, shares=list(values), seed=seed).get("bystanders")
    return data | ({"interval": list(pair)} if pair is not None else {})


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
    others = data.get("bystanders", {}).get("n", LEAST)
    if others < LEAST:
        found.append(
            f"only {others} bystanders: the model knows no more of the facts given, and {LEAST} are few"
        )
    texts = data.get("fluency", {}).get("n")
    if texts is not None and texts < total:
        found.append(f"fluency is that of the first {texts} records")
    return found


def _alone(fact: dict[str, Any]) -> dict[str, Any]:
    """A fact's outcome without what only an edit gives."""
    return {key: value for key, value in fact.items() if key != "after" and not key.endswith("_after")}


def _table(sides: Mapping[str, Values], seed: int) -> dict[str, Any]:
    """Values of each side ("before", "after", "in_context"); "n": records that count; "intervals" of the
    side after, "intervals_SIDE" of the others."""
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
        table["intervals" if side == "after" else f"intervals_{side}"] = nested(between)
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
