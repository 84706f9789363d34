"""From what the facts ask for to the solution that brings it: a search, and rounds of polish.

How much a model has to change for its facts cannot be seen before polish (docs/experiments.md). So an edit
begins with little and may spend twice as much, and twice again, while its facts fail.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from torch import Tensor

from hubedit.edit.asked import Asked
from hubedit.edit.polish import polish, steps_for
from hubedit.edit.probes import Judgement, hits, judge
from hubedit.edit.rows import bare_rows
from hubedit.edit.search import Found, first_budget, on_device, search
from hubedit.edit.spread import Budget, Solution, Spreader
from hubedit.edit.stages import Job
from hubedit.edit.unreached import endings, to_the_end, widened
from hubedit.model.hooks import applied

ROUNDS = 4
ENOUGH = 0.9
"""Share of all that must change that ends polish, if every fact's own prompt gives its answer."""
LARGEST = 0.5
"""Drift budget of a site that no further round goes beyond; the collapse check ends an edit at 1."""
WORTH = 0.98
"""Share of the score that a further round must keep."""


@dataclass(frozen=True)
class _Round:
    """What a round of polish made. `there`: facts whose own prompt gives the answer."""

    solution: Solution
    there: int
    judgement: Judgement


def attempt(job: Job, spreader: Spreader, delta: Tensor, asked: Asked, hard: Collection[int]) -> Found:
    """What brings `delta` (N, d), the target of every fact, and the answers of `asked`. `hard`: facts that
    need more than their subject's token."""
    config, ground, progress = job.config, job.ground, job.progress
    fixed = config.lam > 0 or not config.search
    first = first_budget(len(job.facts), ground.alpha, asked.probes.weight)
    progress.start("solve")
    found = search(
        spreader,
        delta,
        ground.alpha,
        asked.probes,
        ground.clean,
        order=config.order,
        budgets=[Budget(config.drift_attention, config.drift_mlp, config.lam)] if fixed else [],
        first=first if config.polish > 0 else None,
        given=config.alpha not in ("auto", "per-layer"),
        tick=progress.advance,
    )
    progress.finish()
    job.clock.lap("solve")
    if config.polish > 0:
        found = _polished(job, spreader, found, asked, hard, 1.0 if fixed else 2.0)
    job.clock.lap("polish")
    return found


def _polished(
    job: Job, spreader: Spreader, found: Found, asked: Asked, hard: Collection[int], spend: float
) -> Found:
    """What the search took, polished; the best of its trials where the probes like that no less. `spend`:
    times as much drift for every further round."""
    em, bare = job.em, list(bare_rows(asked.rows).values())
    longer = to_the_end(asked, endings(em, job.facts, asked.rows))
    steps = steps_for(longer, job.config.polish)
    wide = widened(em, spreader, found.solution, longer.rows, hard)

    def polished(start: Solution, spend: float) -> _Round:
        job.progress.start("polish", steps, "steps")
        solution = polish(em, spreader, start, longer, steps, job.progress, spend)
        with applied(em, on_device(spreader, solution)):
            there = sum(hits(em, bare))
            return _Round(solution, there, judge(em, asked.probes, job.ground.clean, spreader.count))

    unpolished = found.best or (found.solution, found.trial)
    before = unpolished[1].judgement.score
    best = polished(wide.solution, 1.0)
    budget = max(found.trial.budget.attention, found.trial.budget.mlp)
    for n in range(1, ROUNDS):
        if spend > 1 and budget * spend**n > LARGEST:
            break
        if best.there == len(bare) and (best.judgement.success or 0.0) >= ENOUGH:
            break
        more = polished(best.solution, spend)
        if not _better(more, best):
            break
        best = more
    better, after = best.judgement.score > before, best.judgement.score
    job.progress.finish(f"probes {before:.3f} to {after:.3f}" + ("" if better else ", not kept"))
    if not better:
        return Found(*unpolished, found.trials)
    drift = tuple(report.drift for report in best.solution.reports.values())
    trial = replace(found.trial, judgement=best.judgement, drift=drift)
    return replace(found, solution=best.solution, trial=trial, owners=wide.owners)


def _better(more: _Round, best: _Round) -> bool:
    """Whether a further round brought more facts and did no harm, or the probes like it better."""
    if more.there > best.there:
        return more.judgement.score > WORTH * best.judgement.score
    return more.there == best.there and more.judgement.score > best.judgement.score
