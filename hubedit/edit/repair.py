"""Facts that fail after the solve are optimised again, through the factors, and the factors corrected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hubedit.config import EditConfig
from hubedit.edit.places import at_places
from hubedit.edit.probes import Probes, TextState, hits, judge
from hubedit.edit.rows import Row, bare_rows
from hubedit.edit.search import Found
from hubedit.edit.spread import Solution, Spreader
from hubedit.edit.targets import optimise
from hubedit.model.editable import EditableModel
from hubedit.model.hooks import applied
from hubedit.progress import Progress


def repair(
    em: EditableModel,
    spreader: Spreader,
    found: Found,
    rows: Sequence[Row],
    where: Sequence[int],
    probes: Probes,
    clean: TextState,
    config: EditConfig,
    progress: Progress,
) -> tuple[Solution, int]:
    """Re-optimises the facts that fail through the factors, up to `config.repair` times. `where`: each
    fact's place (`hubedit.edit.places`); with a fact the others of its place are optimised again.

    The right factors and lambdas stay; only what the left factors ask for changes, so the rank does not
    grow. A round is kept when more facts succeed and the judgement does not fall. Returns the solution
    and how many facts it brought round.
    """
    best, best_judgement = found.solution, found.trial.judgement
    if config.repair < 1:
        return best, 0
    of_fact = bare_rows(rows)
    bare = [of_fact[n] for n in range(spreader.count)]
    with applied(em, {s: f.to(em.device) for s, f in best.factors.items()}):
        ok = hits(em, bare)
    first = sum(ok)
    for _ in range(config.repair):
        failing = [n for n, good in enumerate(ok) if not good]
        if not failing:
            break
        number = {place: i for i, place in enumerate(sorted({where[n] for n in failing}))}
        part = [replace(r, fact=number[r.fact]) for r in at_places(rows, where) if r.fact in number]
        progress.start("repair", len(number), "facts" if len(set(where)) == len(where) else "subjects")
        live = {s: f.to(em.device) for s, f in best.factors.items()}
        extra = optimise(
            em, part, len(number), spreader.layers[-1], config.targets, factors=live, progress=progress
        )
        with applied(em, live):
            delta = spreader.mean_at_subject(spreader.layers[-1])["hidden"] - spreader.clean
        again = [n for n, place in enumerate(where) if place in number]
        delta[again] += extra.delta.double()[[number[where[n]] for n in again]]
        attempt = spreader.correct(best, delta, found.trial.alpha)
        with applied(em, {s: f.to(em.device) for s, f in attempt.factors.items()}):
            now = hits(em, bare)
            judgement = judge(em, probes, clean, spreader.count)
        better = sum(now) > sum(ok) and judgement.affords(best_judgement)
        progress.finish(f"{sum(now) - sum(ok):+d} facts" + ("" if better else ", not kept"))
        if not better:
            break
        best, best_judgement, ok = attempt, judgement, now
    return best, sum(ok) - first
