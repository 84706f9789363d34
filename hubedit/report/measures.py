"""What a report measured, as one flat list that the tables, the metadata and comparisons are made from.

A number that is not in the report gives no entry; nothing here turns into zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hubedit.report.markup import number, percent

Json = Mapping[str, Any]

ANSWERS = {
    "success": "Success: the prompt gives the new answer",
    "generalisation": "Generalisation: rephrasings give it",
    "locality": "Locality: other prompts about the same subject are unchanged",
    "neighbourhood": "Neighbourhood: prompts about other subjects are unchanged",
    "portability": "Portability: what follows from the edit is answered",
}
GROUPS = {
    "answers": (
        "Answers",
        "Greedy generations: the text must begin with the whole answer, or one of its aliases; what follows "
        "is not looked at. n counts prompts.",
    ),
    "exact": (
        "Answers and nothing else",
        "The same generations up to where the model stops: the first sentence must be the answer, or one of "
        "its aliases, and nothing else. Base models often go on in the same sentence, which fails here.",
    ),
    "text": ("Held-out text", ""),
    "teacher-forced": (
        "As published tables count it (KnowEdit)",
        "Teacher-forced: the model is shown the answer's earlier tokens, and with them its length. "
        "For comparison with published tables only. n counts facts.",
    ),
    "counterfact": (
        "As published tables count it (CounterFact)",
        "Probability of the new answer against the old. n counts facts.",
    ),
    "tasks": ("General abilities", "± one standard error, by lm-eval. n counts questions."),
}
_COUNTERFACT = {
    "efficacy_score": "Efficacy score",
    "efficacy_magnitude": "Efficacy magnitude",
    "paraphrase_score": "Paraphrase score",
    "paraphrase_magnitude": "Paraphrase magnitude",
    "neighbourhood_score": "Neighbourhood score",
    "neighbourhood_magnitude": "Neighbourhood magnitude",
    "score": "Score (harmonic mean)",
}
_EXACT = {
    "success": "The prompt",
    "generalisation": "Rephrasings",
    "portability": "What follows from the edit",
}
_FORCED = {"edit_success": "Edit success", "rephrase": "Rephrasings"}


@dataclass(frozen=True)
class Value:
    """A number; `low`, `high`: its 95 % interval; `error`: its standard error. Same unit all."""

    value: float
    low: float | None = None
    high: float | None = None
    error: float | None = None


@dataclass(frozen=True)
class Measure:
    """`group`: a key of GROUPS; `key`: unique in it; `unit`: "share" (0..1) or "" for a plain number;
    `n`: over how many prompts, facts, tokens or questions; `form`: how a plain number is written."""

    group: str
    key: str
    name: str
    unit: str
    before: Value | None
    after: Value | None
    n: int | None = None
    form: str = ".4g"

    def text(self, side: str) -> str:
        """`92.0 % (84.0 to 98.0)`, `10.5`, `0.41 ± 0.01`; "" where it was not measured."""
        value: Value | None = getattr(self, side)
        if value is None:
            return ""
        share = self.unit == "share"
        shown = percent(value.value) if share else format(value.value, self.form)
        if value.low is not None and value.high is not None:
            ends = (f"{100 * x:.1f}" if share else format(x, self.form) for x in (value.low, value.high))
            shown += f" ({' to '.join(ends)})"
        return shown if value.error is None else f"{shown} ± {format(value.error, '.2g')}"


def measures(report: Json) -> tuple[Measure, ...]:
    """Everything that one report (or one variant of it) measured."""
    found = (
        *_answers(report),
        *_exact(report),
        *_text(report),
        *_forced(report),
        *_counterfact(report),
        *_tasks(report),
    )
    return tuple(m for m in found if m.before is not None or m.after is not None)


def variant(report: Json, name: str) -> Json:
    """The report of the "adapter" or the "merged" model; the top level where there are no variants.

    What the variant did not measure stays absent: only notes and circumstances are taken from the top.
    """
    found = report.get("variants", {}).get(name)
    if not isinstance(found, Mapping):
        return {} if name == "merged" and report.get("variants") else report
    return {**{key: report[key] for key in ("notes", "evaluated", "text") if key in report}, **found}


def outcomes(report: Json) -> Sequence[Json]:
    """The facts of a report, one entry each."""
    found = report.get("facts", ())
    return [x for x in found if isinstance(x, Mapping)] if isinstance(found, Sequence) else []


def alone(report: Json) -> bool:
    """Whether only the unedited model was read: then nothing took or failed."""
    return "metrics" not in report and "metrics_before" in report


def shifts(report: Json) -> list[tuple[float, float]]:
    """Probability of each fact's target before and after, where both were measured."""
    pairs = report.get("probability_shift")
    if pairs is None:
        pairs = [(o.get("probability_before"), o.get("probability_after")) for o in outcomes(report)]
    known = [(number(pair[0]), number(pair[1])) for pair in pairs if len(pair) == 2]
    return [(old, new) for old, new in known if old is not None and new is not None]


def _answers(report: Json) -> Iterator[Measure]:
    was, counts = report.get("metrics_before", {}), report.get("counts", {})
    old, new = report.get("intervals_before", {}), report.get("intervals", {})
    now = report.get("metrics", {})
    for key in {**now, **was}:
        before, after = _value(was.get(key), old.get(key)), _value(now.get(key), new.get(key))
        yield Measure("answers", key, ANSWERS.get(key, key), "share", before, after, _count(counts.get(key)))
    name = "Harmonic mean of these"
    after = _value(report.get("harmonic_mean"), new.get("harmonic_mean"))
    yield Measure("answers", "harmonic_mean", name, "share", None, after)
    pairs = shifts(report)
    if pairs:
        means = [sum(column) / len(pairs) for column in zip(*pairs, strict=True)]
        before, after = _value(means[0], old.get("probability")), _value(means[1], new.get("probability"))
        name = "Mean probability of the target (geometric mean over its tokens)"
        yield Measure("answers", "probability", name, "", before, after, len(pairs), ".3g")


def _exact(report: Json) -> Iterator[Measure]:
    for key, before, after, n in _sides(report.get("exact_match") or {}):
        yield Measure("exact", key, _EXACT.get(key, key), "share", before, after, n)


def _text(report: Json) -> Iterator[Measure]:
    told = report.get("perplexity") or {}
    before = _value(report.get("perplexity_before"), told.get("interval_before"))
    after = _value(report.get("perplexity_after"), told.get("interval"))
    yield Measure("text", "perplexity", "Perplexity", "", before, after, _count(told.get("n")))
    kl = report.get("kl") or {}
    after = _value(kl.get("mean"), kl.get("interval"))
    yield Measure(
        "text", "kl", "KL(before || after), nats a token", "", None, after, _count(kl.get("n")), ".3g"
    )
    fluency = report.get("fluency") or {}
    before = _value(fluency.get("before"), fluency.get("interval_before"))
    after = _value(fluency.get("after"), fluency.get("interval"))
    name = "Fluency: entropy of the 2- and 3-grams of texts that begin with the edited prompts, bits"
    yield Measure("text", "fluency", name, "", before, after, _count(fluency.get("n")))


def _forced(report: Json) -> Iterator[Measure]:
    for key, before, after, n in _sides(report.get("teacher_forced") or {}):
        kind, _, part = key.partition("/")
        name = _FORCED.get(key) or kind.replace("_", " ").capitalize() + (f": {part}" if part else "")
        yield Measure("teacher-forced", key, name, "share", before, after, n)


def _counterfact(report: Json) -> Iterator[Measure]:
    found = {row[0]: row for row in _sides(report.get("counterfact") or {})}
    for key, name in _COUNTERFACT.items():
        if key in found:
            unit = "" if key.endswith("magnitude") else "share"
            _, before, after, n = found[key]
            yield Measure("counterfact", key, name, unit, before, after, n, ".3f")


def _sides(table: Json) -> Iterator[tuple[str, Value | None, Value | None, int | None]]:
    """(key, before, after, n) of a table with sides, each nested by type or not."""
    part = {name: _flat(table.get(name) or {}) for name in ("before", "after", "n")}
    low, high = (_flat(table.get(name) or {}) for name in ("intervals_before", "intervals"))
    for key in {**part["after"], **part["before"]}:
        old, new = (
            _value(part["before"].get(key), low.get(key)),
            _value(part["after"].get(key), high.get(key)),
        )
        yield key, old, new, _count(part["n"].get(key))


def _tasks(report: Json) -> Iterator[Measure]:
    for task, metrics in (report.get("tasks") or {}).items():
        for metric, found in metrics.items():
            old = _value(found.get("before"), found.get("interval_before"), found.get("stderr_before"))
            new = _value(found.get("after"), found.get("interval"), found.get("stderr_after"))
            n = _count(found.get("n"))
            yield Measure("tasks", f"{task}/{metric}", f"{task}, {metric}", "", old, new, n)


def _value(value: Any, interval: Any = None, error: Any = None) -> Value | None:
    known = number(value)
    if known is None:
        return None
    ends = [number(x) for x in interval] if isinstance(interval, Sequence) and len(interval) == 2 else []
    low, high = ends if len(ends) == 2 and None not in ends else (None, None)
    return Value(known, low, high, number(error))


def _count(value: Any) -> int | None:
    known = number(value)
    return None if known is None else int(known)


def _flat(side: Json) -> dict[str, Any]:
    """`{"portability": {"Reasoning": v}}` as `{"portability/Reasoning": v}`."""
    flat: dict[str, Any] = {}
    for key, value in side.items():
        flat.update(
            {f"{key}/{k}": v for k, v in value.items()} if isinstance(value, Mapping) else {key: value}
        )
    return flat
