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
    "locality": "Locality: answers to other prompts about the same subject begin as before",
    "neighbourhood": "Neighbourhood: answers to prompts about other subjects begin as before",
    "portability": "Portability: what follows from the edit is answered",
    "bystanders": "Bystanders: known facts that nobody edited still get their true answer",
}
GROUPS = {
    "answers": (
        "Answers",
        "Greedy generations: the text must begin with the whole answer, or one of its aliases; what follows "
        "is not looked at. Unchanged means the same first word. n counts prompts. In context: the unedited "
        "model with the fact written in front of the prompt, so what a rephrasing can give at all.",
    ),
    "exact": (
        "Answers and nothing else",
        "The same generations up to where the model stops: the first sentence must be the answer, or one of "
        "its aliases, and nothing else; unchanged means all that was generated. Base models often go on in "
        "the same sentence, which fails here.",
    ),
    "forms": (
        "The same facts asked in other ways",
        "Bare: the prompt as it is written. Question: as a question. Instruction: a question after the words "
        '"Answer the question in a few words". Chat: a user\'s message in the chat template, '
        '"Complete the sentence with a few words: ..." where the prompt is no question. '
        "Exact: the answer and nothing else. Judged: another model says that the answer means the target. "
        "n counts prompts.",
    ),
    "automatic": (
        "Probes made from the facts",
        "Each in the model's usual form; none of them was edited. n counts facts.",
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
    "locality": "Other prompts about the same subject",
    "neighbourhood": "Prompts about other subjects",
    "portability": "What follows from the edit",
}
_AUTOMATIC = {
    "negation": "Negation: the new answer is not given where it is denied",
    "yes": "Yes to the question whether the new answer is right",
    "no": "No to the question whether the old answer is right",
    "reverse": "Reverse: the subject is given for the new answer",
    "old_answer": "The new answer, after the old one was named",
    "unrelated": "The new answer stays out of an unrelated sentence about the subject",
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
    `n`: over how many prompts, facts, tokens or questions; `form`: how a plain number is written;
    `in_context`: of the unedited model with the fact in front of the prompt."""

    group: str
    key: str
    name: str
    unit: str
    before: Value | None
    after: Value | None
    n: int | None = None
    form: str = ".4g"
    in_context: Value | None = None

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
        *_forms(report),
        *_automatic(report),
        *_text(report),
        *_forced(report),
        *_counterfact(report),
        *_tasks(report),
    )
    return tuple(m for m in found if any((m.before, m.after, m.in_context)))


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
    now, stored = report.get("metrics", {}), report.get("in_context") or {}
    said, between = stored.get("metrics", {}), stored.get("intervals", {})
    for key in {**now, **was, **said}:
        before, after = _value(was.get(key), old.get(key)), _value(now.get(key), new.get(key))
        n, context = _count(counts.get(key)), _value(said.get(key), between.get(key))
        yield Measure("answers", key, ANSWERS.get(key, key), "share", before, after, n, in_context=context)
    name = "Harmonic mean"
    after = _value(report.get("harmonic_mean"), new.get("harmonic_mean"))
    context = _value(stored.get("harmonic_mean"), between.get("harmonic_mean"))
    yield Measure("answers", "harmonic_mean", name, "share", None, after, in_context=context)
    kept = report.get("bystanders") or {}
    before, after = _value(kept.get("before")), _value(kept.get("after"), kept.get("interval"))
    yield Measure(
        "answers", "bystanders", ANSWERS["bystanders"], "share", before, after, _count(kept.get("n"))
    )
    pairs = shifts(report)
    if pairs:
        means = [sum(column) / len(pairs) for column in zip(*pairs, strict=True)]
        before, after = _value(means[0], old.get("probability")), _value(means[1], new.get("probability"))
        name = "Mean probability of the target (geometric mean over its tokens)"
        yield Measure("answers", "probability", name, "", before, after, len(pairs), ".3g")


def _exact(report: Json) -> Iterator[Measure]:
    for key, before, after, n, context in _sides(report.get("exact_match") or {}):
        name = _EXACT.get(key, key)
        yield Measure("exact", key, name, "share", before, after, n, in_context=context)


def _forms(report: Json) -> Iterator[Measure]:
    for key, before, after, n, context in _sides(report.get("forms") or {}):
        form, _, metric = key.partition("/")
        name = f"{form.capitalize()}: {metric}"
        yield Measure("forms", key, name, "share", before, after, n, in_context=context)


def _automatic(report: Json) -> Iterator[Measure]:
    for key, before, after, n, context in _sides(report.get("automatic") or {}):
        name = _AUTOMATIC.get(key, key)
        yield Measure("automatic", key, name, "share", before, after, n, in_context=context)


def _text(report: Json) -> Iterator[Measure]:
    yield from _perplexity(report, "", "Perplexity")
    yield from _perplexity(report.get("real_text") or {}, "real_", "Perplexity of the real text")
    fluency = report.get("fluency") or {}
    before = _value(fluency.get("before"), fluency.get("interval_before"))
    after = _value(fluency.get("after"), fluency.get("interval"))
    name = "Fluency: entropy of the 2- and 3-grams of texts that begin with the edited prompts, bits"
    yield Measure("text", "fluency", name, "", before, after, _count(fluency.get("n")))


def _perplexity(data: Json, prefix: str, name: str) -> Iterator[Measure]:
    """Perplexity of one text, its ratio, and the divergence on it."""
    stored, kl = data.get("perplexity") or {}, data.get("kl") or {}
    before = _value(data.get("perplexity_before"), stored.get("interval_before"))
    after = _value(data.get("perplexity_after"), stored.get("interval"))
    yield Measure("text", f"{prefix}perplexity", name, "", before, after, _count(stored.get("n")))
    after, key = _value(data.get("perplexity_ratio")), f"{prefix}perplexity_ratio"
    yield Measure("text", key, f"{name}, after / before", "", None, after, _count(stored.get("n")), ".3f")
    after, n = _value(kl.get("mean"), kl.get("interval")), _count(kl.get("n"))
    where = " on the real text" if prefix else ""
    name = f"KL(before || after){where}, nats a token"
    yield Measure("text", f"{prefix}kl", name, "", None, after, n, ".3g")


def _forced(report: Json) -> Iterator[Measure]:
    for key, before, after, n, context in _sides(report.get("teacher_forced") or {}):
        kind, _, part = key.partition("/")
        name = _FORCED.get(key) or kind.replace("_", " ").capitalize() + (f": {part}" if part else "")
        yield Measure("teacher-forced", key, name, "share", before, after, n, in_context=context)


def _counterfact(report: Json) -> Iterator[Measure]:
    found = {row[0]: row for row in _sides(report.get("counterfact") or {})}
    for key, name in _COUNTERFACT.items():
        if key in found:
            unit = "" if key.endswith("magnitude") else "share"
            _, before, after, n, context = found[key]
            yield Measure("counterfact", key, name, unit, before, after, n, ".3f", context)


def _sides(table: Json) -> Iterator[tuple[str, Value | None, Value | None, int | None, Value | None]]:
    """(key, before, after, n, in context) of a table with sides, each nested by type or not."""
    keys = {"before": "intervals_before", "after": "intervals", "in_context": "intervals_in_context"}
    values = {side: _flat(table.get(side) or {}) for side in keys}
    ends = {side: _flat(table.get(name) or {}) for side, name in keys.items()}
    counts = _flat(table.get("n") or {})
    for key in {**values["after"], **values["before"], **values["in_context"]}:
        old, new, context = (_value(values[side].get(key), ends[side].get(key)) for side in keys)
        yield key, old, new, _count(counts.get(key)), context


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
