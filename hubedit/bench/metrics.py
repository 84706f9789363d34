"""The metrics of the tables: where they stand in the results file, and how they are printed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hubedit.bench.numbers import Line, Number


@dataclass(frozen=True)
class Metric:
    """`key`: in the results file; `scale`: what it is multiplied by as printed; `digits`: after the point;
    `share`: whether it lies between 0 and 1."""

    key: str
    name: str
    scale: float = 100.0
    digits: int = 2
    share: bool = True

    def interval(self, number: Number) -> tuple[float, float] | None:
        """Its interval as printed; Student's, which knows no bounds, ends where a share does."""
        if number.low is None or number.high is None:
            return None
        low, high = (max(number.low, 0.0), min(number.high, 1.0)) if self.share else (number.low, number.high)
        return self.scale * low, self.scale * high


FORCED = (
    Metric("teacher-forced/edit_success", "Edit Success"),
    Metric("teacher-forced/portability_mean", "Portability"),
    Metric("teacher-forced/locality_mean", "Locality"),
    Metric("text/fluency", "Fluency", share=False),
)
GREEDY = (
    Metric("answers/success", "Success", digits=1),
    Metric("answers/generalisation", "Generalisation", digits=1),
    Metric("answers/locality", "Locality (greedy)", digits=1),
    Metric("answers/neighbourhood", "Neighbourhood", digits=1),
    Metric("answers/portability", "Portability (greedy)", digits=1),
    Metric("answers/harmonic_mean", "Harmonic mean", digits=1),
)
FIRST_AND_LAST = (
    Metric("sequence/newest", "Newest hundred", digits=1),
    Metric("sequence/oldest", "Oldest hundred", digits=1),
)
STRICT = (
    Metric("exact/success", "Success (exact)", digits=1),
    Metric("exact/neighbourhood", "Neighbourhood (whole)", digits=1),
    Metric("answers/bystanders", "Bystanders", digits=1),
)
FORMS = (
    Metric("forms/chat/success", "Chat", digits=1),
    Metric("forms/chat/exact", "Chat (exact)", digits=1),
    Metric("forms/question/success", "Question", digits=1),
    Metric("forms/question/exact", "Question (exact)", digits=1),
    Metric("forms/instruction/success", "Instruction", digits=1),
    Metric("forms/bare/success", "Bare", digits=1),
)
AUTOMATIC = tuple(
    Metric(f"automatic/{kind}", kind.replace("_", " ").capitalize(), digits=1)
    for kind in ("negation", "yes", "no", "reverse", "old_answer", "unrelated")
)
PROBABILITY = (
    Metric("counterfact/efficacy_score", "ES", digits=1),
    Metric("counterfact/paraphrase_score", "PS", digits=1),
    Metric("counterfact/neighbourhood_score", "NS", digits=1),
    Metric("counterfact/score", "S", digits=1),
)
PERPLEXITY = Metric("text/perplexity", "PPL", scale=1.0, share=False)
BYSTANDERS = STRICT[-1]
NEIGHBOURHOOD = GREEDY[3]
COST = (
    Metric("text/perplexity_ratio", "PPL ratio", scale=1.0, digits=3, share=False),
    Metric("text/real_perplexity", "PPL (real text)", scale=1.0, share=False),
    Metric("text/real_perplexity_ratio", "PPL ratio (real text)", scale=1.0, digits=3, share=False),
    Metric("run/seconds", "Time, s", scale=1.0, digits=0, share=False),
    Metric("run/process", "Memory, GB", scale=1e-9, digits=1, share=False),
    Metric("run/device", "GPU memory, GB", scale=1e-9, digits=1, share=False),
)
EVERY = (*FORCED, *GREEDY, *FIRST_AND_LAST, *STRICT, *FORMS, *AUTOMATIC, *PROBABILITY, PERPLEXITY, *COST)


def tasks(found: Iterable[Line]) -> tuple[Metric, ...]:
    """The metrics of the tasks that some of the lines have answered."""
    keys = dict.fromkeys(key for line in found for key in line.numbers if key.startswith("tasks/"))
    return tuple(Metric(k, k.removeprefix("tasks/").replace("/", " "), share=False) for k in keys)


def text(number: Number | None, metric: Metric, line: Line | None = None) -> str:
    """`92.70 (91.90 to 93.50)`; "" where nothing was measured, "failed" where every replicate of the line
    ended with an error."""
    if number is None:
        return "failed" if line is not None and line.errors and not line.numbers else ""
    shown = [f"{x:.{metric.digits}f}" for x in (metric.scale * number.mean, *(metric.interval(number) or ()))]
    return f"{shown[0]} ({shown[1]} to {shown[2]})" if len(shown) == 3 else shown[0]
