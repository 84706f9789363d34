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

from collections.abc import Iterable, Mapping, Sequence

from hubedit.evaluate.forced import Forced, Pair, by_pair
from hubedit.facts import Fact, Probe

Values = dict[str, list[list[float]]]
"""By metric ("portability/Reasoning"): for each fact its value in a list, or an empty list."""

_UNNAMED = "other"


def knowedit_pairs(facts: Iterable[Fact]) -> list[Pair]:
    """Every prompt and answer that the metrics look at."""
    pairs: list[Pair] = []
    for fact in facts:
        pairs += [(prompt, fact.target) for prompt in (fact.prompt, *fact.rephrase)]
        pairs += [(p.prompt, p.answers[0]) for p in (*fact.locality, *fact.portability) if p.answers]
    return pairs


def knowedit(
    facts: Sequence[Fact], found: Mapping[Pair, Forced], before: Mapping[Pair, Forced] | None = None
) -> Values:
    """Values by metric and fact. `before`: the unedited model's predictions; locality needs them."""
    values: Values = {}

    def note(name: str, number: int, shares: Sequence[float]) -> None:
        if shares:
            values.setdefault(name, [[] for _ in facts])[number] = [sum(shares) / len(shares)]

    for number, fact in enumerate(facts):
        note("edit_success", number, _shares(found, [(fact.prompt, fact.target)]))
        note("rephrase", number, _shares(found, [(p, fact.target) for p in fact.rephrase]))
        answered = _by_kind(fact.portability, found)
        kept = _by_kind(fact.locality, found, before) if before is not None else {}
        for name, kinds in (("portability", answered), ("locality", kept)):
            for kind, shares in kinds.items():
                note(f"{name}/{kind}", number, shares)
            note(f"{name}_mean", number, [sum(s) / len(s) for s in kinds.values()])
    return values


def unchanged_tokens(before: Forced, after: Forced) -> float:
    """Share of an answer's places where both models find the same token the likeliest."""
    same = sum(a == b for a, b in zip(before.predicted, after.predicted, strict=True))
    return same / len(before.predicted)


def _shares(found: Mapping[Pair, Forced], pairs: Iterable[Pair]) -> list[float]:
    return [found[pair].accuracy for pair in pairs if pair in found]


def _by_kind(
    probes: Iterable[Probe], found: Mapping[Pair, Forced], before: Mapping[Pair, Forced] | None = None
) -> dict[str, list[float]]:
    kinds: dict[str, list[float]] = {}
    for probe in probes:
        after = by_pair(found, probe.prompt, probe.answers)
        if after is None:
            continue
        if before is None:
            share = after.accuracy
        else:
            old = by_pair(before, probe.prompt, probe.answers)
            if old is None:
                continue
            share = unchanged_tokens(old, after)
        kinds.setdefault(probe.kind or _UNNAMED, []).append(share)
    return kinds
