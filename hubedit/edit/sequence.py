"""Editing in sequence: batch after batch, each on the model as the batches before have left it.

The facts of earlier batches are protected in the way the method knows, or not at all, as published.
AlphaEdit preserves the keys that each batch had when it was done; the joint method preserves the keys that
earlier facts have now, except of what is edited again, and asks that their answers stay. The result is the
exact sum of the batches' factors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from hubedit.cache import digest
from hubedit.edit.methods.context_templates import contexts_of
from hubedit.edit.methods.finish import finished, report
from hubedit.edit.methods.layered import keys
from hubedit.edit.methods.rome import joined
from hubedit.edit.prompts.same_subject import sharing
from hubedit.edit.result import Edit
from hubedit.edit.rows import edit_rows
from hubedit.edit.solve.keys import at_subject
from hubedit.edit.stages import Job
from hubedit.facts import Fact
from hubedit.facts.answers import normalise
from hubedit.linalg import LowRank
from hubedit.model.hooks import applied
from hubedit.model.sites import Site
from hubedit.presets import METHODS


def in_batches(run: Callable[[Job], Edit], job: Job) -> Edit:
    """`run` on batches of `config.batch_size` facts, one after another; on all at once with 0."""
    method = METHODS[job.config.method]
    if method.published:
        # once, as MEMIT does: an edited model writes other sentences
        job = replace(job, contexts=contexts_of(job.em, job.config))
    size = job.config.batch_size or len(job.facts)
    batches = [job.facts[at : at + size] for at in range(0, len(job.facts), size)]
    kept = list(job.kept)
    job = replace(job, earlier=_keys(job, kept) if method.keeps_keys else {})
    if len(batches) == 1 or method.one_by_one:
        return run(_guarded(job))
    done: list[Edit] = []
    live: dict[Site, LowRank] = {}
    em = job.em
    with applied(job.em, live):
        for number, batch in enumerate(batches, 1):
            job.progress.message(f"batch {number} of {len(batches)}")
            kept = still(kept, batch)
            done.append(run(_guarded(replace(job, em=em, facts=batch, kept=kept))))
            for site, factor in done[-1].factors.items():
                own = factor.to(job.em.device)
                live[site] = (live[site] + own).compress() if site in live else own
            parts = sorted((str(site), factor.digest()) for site, factor in live.items())
            em = replace(job.em, identity=f"{job.em.identity}+{digest(parts)[:16]}")
            kept = [*kept, *batch]
            if method.keeps_keys:
                job = replace(job, earlier=_joined(job.earlier, _keys(job, batch)))
    return _together(job, done, live)


def still(kept: Sequence[Fact], batch: Sequence[Fact]) -> list[Fact]:
    """The facts that a batch does not edit again."""
    again = {(normalise(f.subject), f.template) for f in batch} | {normalise(f.prompt) for f in batch}
    return [
        f
        for f in kept
        if (normalise(f.subject), f.template) not in again and normalise(f.prompt) not in again
    ]


def _guarded(job: Job) -> Job:
    """For hubedit's own method: with the keys that the earlier facts about other subjects have now.

    What a batch adds to a subject must reach the key that its earlier facts have too; their answers are among
    what its target must give (`hubedit.edit.methods.joint`).
    """
    if METHODS[job.config.method].published:
        return job
    shared = sharing(job.em, job.facts, job.kept)
    return replace(job, earlier=_keys(job, [f for n, f in enumerate(job.kept) if n not in shared]))


def _keys(job: Job, facts: Sequence[Fact]) -> Mapping[Site, Tensor]:
    """The keys (M, d_in) that facts edited before have now, averaged over contexts, at every edited site."""
    if not facts:
        return {}
    ground = job.ground
    rows = edit_rows(job.em, facts, job.contexts)
    sites = sorted(ground.moments)
    state = at_subject(job.em, rows, ground.layers[-1], sites)
    return {site: keys(state, rows, len(facts), site) for site in sites}


def _joined(earlier: Mapping[Site, Tensor], own: Mapping[Site, Tensor]) -> dict[Site, Tensor]:
    """Keys of earlier facts, and those of one more batch."""
    return {site: torch.cat([earlier[site], new]) if site in earlier else new for site, new in own.items()}


def _together(job: Job, done: Sequence[Edit], live: Mapping[Site, LowRank]) -> Edit:
    """One edit of all batches, with reports about the sums."""
    factors = {site: factor.to("cpu") for site, factor in live.items()}
    last = {site: edit.reports[site] for edit in done for site in edit.reports}
    reports = {
        s: report(job.em, s, f, job.ground.moments, last[s].lam, last[s].reached) for s, f in factors.items()
    }
    parts = [edit.targets for edit in done if edit.targets is not None]
    alpha = {layer: sum(edit.alpha[layer] for edit in done) / len(done) for layer in done[-1].alpha}
    return finished(job, factors, reports, joined(parts) if parts else None, alpha)
