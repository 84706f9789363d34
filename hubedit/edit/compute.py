"""From facts to factors: the whole story of the joint method on one screen."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hubedit.cache import Cache
from hubedit.config import EditConfig
from hubedit.edit.attempts import attempt
from hubedit.edit.methods.batches import in_batches
from hubedit.edit.methods.table import function_of
from hubedit.edit.places import at_places, places
from hubedit.edit.probes import read_text
from hubedit.edit.repair import repair
from hubedit.edit.result import Clock, Edit, check_collapse, judge_collapse
from hubedit.edit.spread import Spreader, threshold
from hubedit.edit.stages import TEXT_ROWS, Job, cached_survey, cached_targets, measure
from hubedit.edit.unreached import unreached
from hubedit.facts import Fact
from hubedit.model.editable import EditableModel
from hubedit.model.hooks import applied
from hubedit.progress import Progress, Silent

__all__ = ["TEXT_ROWS", "Edit", "check_collapse", "compute", "joint"]


def compute(
    em: EditableModel,
    facts: Sequence[Fact],
    config: EditConfig,
    *,
    kept: Sequence[Fact] = (),
    cache: Cache | None = None,
    progress: Progress | None = None,
) -> Edit:
    """Edits `facts` into factors for `em`, which is the same model afterwards, also when this raises.

    `kept`: facts that an older patch, in effect now, has edited, and that must stay so.
    Raises CollapseError when the result would damage the model, ConfigError when options do not fit it.
    """
    cache, progress, clock = cache or Cache(), progress or Silent(), Clock()
    ground = measure(em, facts, config, cache, progress, clock)
    return in_batches(
        function_of(config.method), Job(em, facts, config, ground, cache, progress, clock, kept)
    )


def joint(job: Job) -> Edit:
    """Attention and MLP together, as docs/method.md tells it."""
    em, facts, config, ground, progress = job.em, job.facts, job.config, job.ground, job.progress
    asked = cached_survey(job)
    job.clock.lap("survey")

    where = places(facts, asked.rows)
    targets = cached_targets(job, at_places(asked.all_rows, where), 1 + max(where), ground.layers[-1])
    job.clock.lap("targets")

    # what polish can bring, the closed form need not keep as it is
    hard = unreached(targets, where) if config.polish > 0 else frozenset()
    spreader = Spreader(
        em,
        asked.rows,
        len(facts),
        ground.layers,
        ground.moments,
        around=[*asked.rows, *asked.preserved, *asked.others],
        unreached=hard,
        own=config.own,
        earlier=job.earlier,
        earlier_weight=earlier_weight(job),
        threshold=threshold(config),
    )
    found = attempt(job, spreader, targets.delta[list(where)], asked, hard)
    solution, repaired = repair(
        em, spreader, found, asked.all_rows, where, asked.probes, ground.clean, config, progress
    )
    factors = {site: solution.factors[site] for site in sorted(solution.factors)}
    with applied(em, {s: f.to(em.device) for s, f in factors.items()}):
        after = read_text(em, ground.text)
    judge_collapse(solution.reports, ground.clean.nll, after.nll, config, progress)
    job.clock.lap("repair")
    return Edit(
        factors,
        ground.layers,
        found.trial.alpha,
        solution.reports,
        found,
        targets,
        ground.traced,
        float(torch.tensor(ground.clean.nll).exp()),
        float(torch.tensor(after.nll).exp()),
        repaired,
        job.clock.laps,
        dict.fromkeys(factors, found.owners) if found.owners else {},
    )


def earlier_weight(job: Job) -> float:
    """Weight of an earlier fact's k k^T in what is preserved: with a fixed lambda as much as a new fact's,
    else all of them together as much as the batch's own prompts."""
    count = max(map(len, job.earlier.values()), default=1)
    return 1 / job.config.lam if job.config.lam > 0 else job.config.own / count
