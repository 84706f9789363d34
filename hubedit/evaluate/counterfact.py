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
from hubedit.evaluate.knowedit import Values
from hubedit.evaluate.reading import Reading, neighbours
from hubedit.facts import Fact

SCORES = ("efficacy_score", "paraphrase_score", "neighbourhood_score")


def counterfact(facts: Sequence[Fact], reading: Reading) -> Values:
    """Values by metric and fact; the score is no mean over facts: see `harmonic`."""
    values: Values = {}

    def note(name: str, number: int, rows: Iterable[tuple[str, str, str]]) -> None:
        """`rows`: a prompt, the answer that should be the likelier one, and the other."""
        fact, gaps = facts[number], []
        for prompt, wanted, other in rows:
            a, b = reading.score(fact, prompt, wanted), reading.score(fact, prompt, other)
            if a is not None and b is not None:
                gaps.append(a.probability - b.probability)
        if gaps:
            wins = [float(gap > 0) for gap in gaps]
            values.setdefault(f"{name}_score", [[] for _ in facts])[number] = [sum(wins) / len(wins)]
            values.setdefault(f"{name}_magnitude", [[] for _ in facts])[number] = [sum(gaps) / len(gaps)]

    for number, fact in enumerate(facts):
        new, old = fact.target, fact.ground_truth[:1]
        note("efficacy", number, [(fact.prompt, new, o) for o in old])
        note("paraphrase", number, [(prompt, new, o) for prompt in fact.rephrase for o in old])
        note("neighbourhood", number, [(p.prompt, p.answers[0], new) for p in neighbours(fact)])
    return values


def harmonic(scores: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64] | None:
    """The harmonic mean of the three scores, element by element; None unless all three are there."""
    if any(name not in scores for name in SCORES):
        return None
    return bootstrap.harmonic(np.stack([scores[name] for name in SCORES]))
