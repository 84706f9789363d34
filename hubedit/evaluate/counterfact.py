"""CounterFact's metrics (Meng et al. 2022, ROME, arXiv 2202.05262, section 3.4; MEMIT, arXiv 2210.07229).

P[answer] is the geometric mean of the probabilities of the answer's tokens, exp(-nll), as in the
authors' code. o* is the new answer, o the old one.

- efficacy: score is the share of records with P[o*] > P[o] after the edited prompt, magnitude the mean of
  P[o*] - P[o].
- paraphrase: the same after the rephrasings.
- neighbourhood: the other way round after prompts about other subjects: P[o] > P[o*], and P[o] - P[o*].
- score: the harmonic mean of the three scores.

A record's prompts are averaged first, then the records. In CounterFact o is also what the neighbours'
prompts are answered with; in other data it is the neighbour's own answer. Records without an old answer,
or without neighbours, lower the number of records that a metric is taken over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from hubedit.evaluate import bootstrap
from hubedit.evaluate.forced import Forced, Pair
from hubedit.evaluate.knowedit import Values
from hubedit.facts import Fact, Probe
from hubedit.facts.answers import mentions, normalise

SCORES = ("efficacy_score", "paraphrase_score", "neighbourhood_score")


def neighbours(fact: Fact) -> list[Probe]:
    """Prompts about other subjects with an answer of their own, which is not the new one."""
    return [
        probe
        for probe in fact.locality
        if probe.answers
        and not mentions(probe.prompt, fact.subject)
        and normalise(probe.answers[0]) != normalise(fact.target)
    ]


def counterfact_pairs(facts: Iterable[Fact]) -> list[Pair]:
    """Every prompt and answer that the metrics look at."""
    pairs: list[Pair] = []
    for fact in facts:
        for prompt in (fact.prompt, *fact.rephrase) if fact.ground_truth else ():
            pairs += [(prompt, fact.target), (prompt, fact.ground_truth[0])]
        for probe in neighbours(fact):
            pairs += [(probe.prompt, fact.target), (probe.prompt, probe.answers[0])]
    return pairs


def counterfact(facts: Sequence[Fact], found: Mapping[Pair, Forced]) -> Values:
    """Values by metric and fact; the score is no mean over facts: see `harmonic`."""
    values: Values = {}

    def note(name: str, number: int, rows: Iterable[tuple[Pair, Pair]]) -> None:
        """`rows`: the pair that should be the likelier one, and the other."""
        gaps = [found[a].probability - found[b].probability for a, b in rows if a in found and b in found]
        if gaps:
            wins = [float(gap > 0) for gap in gaps]
            values.setdefault(f"{name}_score", [[] for _ in facts])[number] = [sum(wins) / len(wins)]
            values.setdefault(f"{name}_magnitude", [[] for _ in facts])[number] = [sum(gaps) / len(gaps)]

    for number, fact in enumerate(facts):
        if fact.ground_truth:
            new, old = fact.target, fact.ground_truth[0]
            note("efficacy", number, [((fact.prompt, new), (fact.prompt, old))])
            note("paraphrase", number, [((p, new), (p, old)) for p in fact.rephrase])
        note(
            "neighbourhood",
            number,
            [((p.prompt, p.answers[0]), (p.prompt, fact.target)) for p in neighbours(fact)],
        )
    return values


def harmonic(scores: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64] | None:
    """The harmonic mean of the three scores, element by element; None unless all three are there."""
    if any(name not in scores for name in SCORES):
        return None
    return bootstrap.harmonic(np.stack([scores[name] for name in SCORES]))
