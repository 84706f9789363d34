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
"""The first among them, so an edit may spend up to eight times its first budget."""
ENOUGH = 0.9
"""Share of all that must change that ends polish, if every fact's own prompt gives its answer."""
LARGEST = 0.5
"""Drift of a site, budgeted or predicted, that no further round goes beyond; the collapse check ends an edit
at 1."""


@dataclass(frozen=True)
class _Round:
    """What a round of polish made. `there`: facts whose own prompt gives the answer; `spent`: times the
    drift of the search's solution that it was allowed."""

    solution: Solution
    there: int
    judgement: Judgement
    spent: float


def attempt(job: Job, spreader: Spreader, delta: Tensor, asked: Asked, hard: Collection[int]) -> Found:
    """What brings `delta` (N, d), the target of every fact, and the answers of `asked`. `hard`: facts that
    need more than their subject's token."""
    config, ground = job.config, job.ground
    fixed = config.lam > 0 or not config.search

    def searched(first: Budget | None) -> Found:
        job.progress.start("solve")
        found = search(
            spreader,
            delta,
            ground.alpha,
            asked.probes,
            ground.clean,
            order=config.order,
            budgets=[Budget(config.drift_attention, config.drift_mlp, config.lam)] if fixed else [],
            first=first,
            given=config.alpha not in ("auto", "per-layer"),
            tick=job.progress.advance,
        )
        job.progress.finish()
        job.clock.lap("solve")
        return found

    if config.polish == 0:
        return searched(None)
    found = searched(first_budget(len(job.facts), ground.alpha, asked.probes.weight))
    polished = _polished(job, spreader, found, asked, hard, 1.0 if fixed else 2.0)
    job.clock.lap("polish")
    if polished is not None:
        return polished
    # a first budget is next to nothing by itself
    tried = [found] if fixed else [found, searched(None)]
    best = max((f.best or (f.solution, f.trial) for f in tried), key=lambda pair: pair[1].judgement.rank)
    return Found(*best, tuple(trial for f in tried for trial in f.trials))


def _polished(
    job: Job, spreader: Spreader, found: Found, asked: Asked, hard: Collection[int], growth: float
) -> Found | None:
    """What the search took, polished; None where the probes like its best trial more. `growth`: times as much
    drift for every further round."""
    em = job.em
    longer = to_the_end(asked, endings(em, job.facts, asked.rows))
    steps = steps_for(longer, job.config.polish)
    wide = widened(em, spreader, found.solution, longer.rows, hard)
    # a name that the model has never written may run on where its first tokens are right
    whole = bare_rows(longer.rows)
    own = [whole[n] if n in hard else r for n, r in bare_rows(asked.rows).items()]

    def one_round(start: Solution, times: float, spent: float) -> _Round:
        job.progress.start("polish", steps, "steps")
        solution = polish(em, spreader, start, longer, steps, job.progress, times)
        with applied(em, on_device(spreader, solution)):
            there = sum(hits(em, own))
            judgement = judge(em, asked.probes, job.ground.clean, spreader.count)
        return _Round(solution, there, judgement, spent)

    before = (found.best or (found.solution, found.trial))[1].judgement
    best = one_round(wide.solution, 1.0, 1.0)
    for _ in range(1, ROUNDS):
        if best.there == len(own) and (best.judgement.success or 0.0) >= ENOUGH:
            break
        if growth > 1 and _drift(found.trial.budget, best) * growth > LARGEST:
            break
        more = one_round(best.solution, growth, best.spent * growth)
        if not _better(more, best):
            break
        best = more
    better = best.judgement.rank > before.rank
    scores = f"probes {before.score:.3f} to {best.judgement.score:.3f}"
    job.progress.finish(scores + ("" if better else ", not kept"))
    if not better:
        return None
    drift = tuple(report.drift for report in best.solution.reports.values())
    first = found.trial.budget
    spent = replace(first, attention=first.attention * best.spent, mlp=first.mlp * best.spent)
    trial = replace(found.trial, budget=spent, judgement=best.judgement, drift=drift)
    return replace(found, solution=best.solution, trial=trial, owners=wide.owners)


def _drift(first: Budget, best: _Round) -> float:
    """The largest of a site: what a round was allowed, or, where a norm stands behind the sites and more was
    needed from the start, what it predicts."""
    predicted = max((report.drift for report in best.solution.reports.values()), default=0.0)
    return max(first.attention * best.spent, first.mlp * best.spent, predicted)


def _better(more: _Round, best: _Round) -> bool:
    """Whether a further round brought more facts and did no harm, or the probes like it better."""
    if more.there > best.there:
        return more.judgement.affords(best.judgement)
    return more.there == best.there and more.judgement.rank > best.judgement.rank
