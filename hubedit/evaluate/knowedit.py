"""KnowEdit's metrics (Zhang et al. 2024, arXiv 2401.01286, section 4.2) as EasyEdit computes them.

All are teacher-forced: the answer is appended to the prompt, and the share of its tokens that are the
likeliest at their places counts (EasyEdit, `test_prediction_acc`). Of several right answers the first
is used, and probes without one are passed over (EasyEdit, `run_knowedit.py`). A record's prompts of one
type are averaged, then the records that have the type; `*_mean` first averages a record's types.

- edit_success: tokens of the new answer after the edited prompt; rephrase: after its rephrasings.
- portability: tokens of each probe's answer.
- locality: tokens at the answer's places that are predicted alike before and after the edit, right or not.

They flatter: the length of the answer is given away, and so is every token before the one asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hubedit.evaluate.forced import Forced
from hubedit.evaluate.reading import Reading
from hubedit.facts import Fact, Probe

Values = dict[str, list[list[float]]]
"""By metric ("portability/Reasoning"): for each fact its value in a list, or an empty list."""

_UNNAMED = "other"


def knowedit(facts: Sequence[Fact], reading: Reading, before: Reading | None = None) -> Values:
    """Values by metric and fact. `before`: of the unedited model; locality needs it."""
    values: Values = {}

    def note(name: str, number: int, shares: Sequence[float]) -> None:
        if shares:
            values.setdefault(name, [[] for _ in facts])[number] = [sum(shares) / len(shares)]

    for number, fact in enumerate(facts):
        for name, prompts in (("edit_success", (fact.prompt,)), ("rephrase", fact.rephrase)):
            scores = [reading.score(fact, prompt, fact.target) for prompt in prompts]
            note(name, number, [score.accuracy for score in scores if score is not None])
        answered = _by_kind(fact, fact.portability, reading)
        kept = _by_kind(fact, fact.locality, reading, before) if before is not None else {}
        for name, kinds in (("portability", answered), ("locality", kept)):
            for kind, shares in kinds.items():
                note(f"{name}/{kind}", number, shares)
            note(f"{name}_mean", number, [sum(s) / len(s) for s in kinds.values()])
    return values


def unchanged_tokens(before: Forced, after: Forced) -> float:
    """Share of an answer's places where both models find the same token the likeliest."""
    same = sum(a == b for a, b in zip(before.predicted, after.predicted, strict=True))
    return same / len(before.predicted)


def _by_kind(
    fact: Fact, probes: Iterable[Probe], reading: Reading, before: Reading | None = None
) -> dict[str, list[float]]:
    kinds: dict[str, list[float]] = {}
    for probe in probes:
        after = reading.score(fact, probe.prompt, probe.answers[0]) if probe.answers else None
        old = before.score(fact, probe.prompt, probe.answers[0]) if before and probe.answers else None
        if after is None or (before is not None and old is None):
            continue
        share = after.accuracy if old is None else unchanged_tokens(old, after)
        kinds.setdefault(probe.kind or _UNNAMED, []).append(share)
    return kinds
