"""Choosing drift budgets and the attention share by trial: solves are cheap, so several are judged on probes.

No fixed budget serves every model (docs/experiments.md): the solve is repeated under a few budgets, each
result is judged by `hubedit.edit.probes`, and the best score wins (success, what stays about the edited
subjects and about others, unchanged text). alpha = 0 (plain MLP editing) is among the candidates unless
the user gives alpha.

Where polish follows, what the closed form brings by itself says little: polish makes as much of a small
budget, and a large one harms subjects that nobody asks about. So there is one budget, which follows the
number of facts, and rounds of polish spend more where that brought too little (`attempts.py`). And the
joint update only has to come near: polish makes more of twice the sites (docs/experiments.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from hubedit.edit.probes import Judgement, Probes, TextState, judge
from hubedit.edit.spread import Budget, Solution, Spreader
from hubedit.linalg import LowRank
from hubedit.model.hooks import applied
from hubedit.model.sites import Site

MLP_BUDGETS = (0.02, 0.05, 0.1, 0.2, 0.4)
"""Tried in turn, up to the first that is worse than the best so far."""
WORSE = 0.995
"""Share of the best score below which a budget is worse; none after it was better (docs/experiments.md)."""
ATTENTION_BUDGETS = (0.003, 0.02)
"""Of a measured alpha: the larger one unless the smaller one was worse than none."""
GIVEN_BUDGETS = (0.02, 0.05, 0.1, 0.2, 0.4)
"""Attention's after 0.003 where the user gives alpha, up to the first that is worse: attention alone edits
next to nothing with 0.02 (docs/experiments.md)."""
NEAR = 0.9
"""Share of the score of the MLP alone that the joint update needs before polish."""
FIRST_BUDGET = 0.006
"""Of the MLPs together for one fact, before polish; n facts get sqrt(n) times as much, for what they change
goes in different directions (docs/experiments.md)."""
ATTENTION_PART = 0.1
"""Of the MLP's budget, attention's before polish."""

NORM_PASSES = 2
"""Further passes where a norm stands behind the sites, and one solve cannot reach what was asked."""


@dataclass(frozen=True)
class Trial:
    """One candidate and what came of it. `drift`: relative, of each site."""

    alpha: Mapping[int, float]
    budget: Budget
    judgement: Judgement
    drift: tuple[float, ...]


@dataclass(frozen=True)
class Found:
    """What was taken, and every trial made on the way. `best`: the solution with the best score and its
    trial, where another was taken because polish follows; `owners`: the fact of every row of the factors'
    A, () where row n is fact n's."""

    solution: Solution
    trial: Trial
    trials: tuple[Trial, ...]
    best: tuple[Solution, Trial] | None = None
    owners: tuple[int, ...] = ()


def first_budget(facts: int, alpha: Mapping[int, float], weight: float = 1.0) -> Budget:
    """What an edit of so many facts, in alpha's layers, begins with where polish follows. `weight`: of
    success beside what stays (`Probes`); four times the weight may spend twice as much."""
    each = min(FIRST_BUDGET * math.sqrt(facts * weight), MLP_BUDGETS[-1]) / max(len(alpha), 1)
    alone = min(alpha.values(), default=0.0) == 1
    return Budget(each if alone else ATTENTION_PART * each, each)


def search(
    spreader: Spreader,
    delta: Tensor,
    alpha: Mapping[int, float],
    probes: Probes,
    clean: TextState,
    *,
    order: str,
    budgets: Sequence[Budget] = (),
    first: Budget | None = None,
    given: bool = False,
    tick: Callable[[], None] = lambda: None,
) -> Found:
    """Tries MLP budgets with alpha = 0, then attention budgets with the given alpha at the best of them.

    `budgets`: try exactly these with the given alpha instead. `first`: what is found will be polished, and
    this is all it may spend. `given`: the user chose alpha, so it is not weighed against 0, and attention may
    have more. `delta` (N, d). `tick` after each trial.
    """
    trials: list[Trial] = []
    best: tuple[Solution, Trial] | None = None
    near: tuple[Solution, Trial] | None = None

    def attempt(share: Mapping[int, float], budget: Budget) -> tuple[Solution, Trial]:
        nonlocal best
        solution = spreader.solve(delta, share, budget, order=order)
        for _ in range(NORM_PASSES if spreader.em.family.post_norm else 0):
            solution = spreader.correct(solution, delta, share)
        with applied(spreader.em, on_device(spreader, solution)):
            judgement = judge(spreader.em, probes, clean, spreader.count)
        drift = tuple(report.drift for report in solution.reports.values())
        trial = Trial(share, budget, judgement, drift)
        trials.append(trial)
        if best is None or trial.judgement.score > best[1].judgement.score:
            best = solution, trial
        tick()
        return solution, trial

    def climb(share: Mapping[int, float], growing: Sequence[Budget]) -> None:
        """Tries budgets up to the first that is worse or changes nothing."""
        before: Trial | None = None
        for budget in growing:
            trial = attempt(share, budget)[1]
            assert best is not None
            worse = trial.judgement.score < WORSE * best[1].judgement.score
            if worse or (before is not None and _spent(before, trial)):
                break
            before = trial

    if budgets:
        for budget in budgets:
            attempt(alpha, budget)
    elif first is not None:
        nothing = dict.fromkeys(alpha, 0.0)
        alone = None if given else attempt(nothing, replace(first, attention=0.0))
        if alone is None or alpha != nothing:
            near = attempt(alpha, first)
            if alone is not None and near[1].judgement.score < NEAR * alone[1].judgement.score:
                near = None
    elif given:
        climb(alpha, [Budget(ATTENTION_BUDGETS[0], mlp) for mlp in MLP_BUDGETS])
        assert best is not None
        if max(alpha.values(), default=0.0) > 0:
            mlp = best[1].budget.mlp
            climb(alpha, [Budget(attention, mlp) for attention in GIVEN_BUDGETS])
    else:
        climb(dict.fromkeys(alpha, 0.0), [Budget(0.0, mlp) for mlp in MLP_BUDGETS])
        assert best is not None
        mlp = best[1].budget.mlp
        for attention in ATTENTION_BUDGETS if max(alpha.values(), default=0.0) > 0 else ():
            before = best[1].judgement.score
            # none after a worse one was better
            if attempt(alpha, Budget(attention, mlp))[1].judgement.score < before:
                break
    assert best is not None
    if near is None or near[1] is best[1]:
        return Found(*best, tuple(trials))
    return Found(*near, tuple(trials), best)


def _spent(before: Trial, after: Trial) -> bool:
    """Whether a larger budget changed nothing: the smallest lambda already stays within the smaller one."""
    return all(abs(a - b) <= 1e-6 * b for b, a in zip(before.drift, after.drift, strict=True))


def on_device(spreader: Spreader, solution: Solution) -> dict[Site, LowRank]:
    """The solution's factors where the model is."""
    return {site: factor.to(spreader.em.device) for site, factor in solution.factors.items()}
