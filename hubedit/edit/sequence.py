"""Editing in sequence: batch after batch, each on the model as the batches before have left it.

The facts of earlier batches are protected in the way the method knows, or not at all, as published.
AlphaEdit and the joint method preserve the keys that each batch had when it was done; the joint method not
those of what is edited again, and it asks that the answers about a subject of the batch stay. The result is
the exact sum of the batches' factors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from hubedit.cache import digest
from hubedit.edit.methods.context_templates import contexts_of
from hubedit.edit.methods.earlier import Earlier, kept_keys, keys_now
from hubedit.edit.methods.finish import finished, report
from hubedit.edit.methods.rome import joined
from hubedit.edit.prompts.same_subject import sharing
from hubedit.edit.result import Edit
from hubedit.edit.stages import Job
from hubedit.facts.together import again
from hubedit.linalg import LowRank
from hubedit.model.hooks import applied
from hubedit.model.sites import Site
from hubedit.presets import METHODS


def in_batches(run: Callable[[Job], Edit], job: Job, steps: Sequence[str] = ()) -> Edit:
    """`run` on batches of `config.batch_size` facts, one after another; on all at once with 0.

    `steps`: for each kept fact the id of the step that edited it, under which the cache may have its keys.
    """
    method = METHODS[job.config.method]
    if method.published:
        # once, as MEMIT does: an edited model writes other sentences
        job = replace(job, contexts=contexts_of(job.em, job.config))
    if method.one_by_one:
        return run(job)
    size = job.config.batch_size or len(job.facts)
    batches = [job.facts[at : at + size] for at in range(0, len(job.facts), size)]
    carries = method.keeps_keys or not method.published
    earlier, fresh = Earlier(), Earlier()
    if carries:
        earlier.add(job.kept, kept_keys(job, steps))
    done: list[Edit] = []
    live: dict[Site, LowRank] = {}
    em = job.em
    with applied(job.em, live):
        for number, batch in enumerate(batches, 1):
            if len(batches) > 1:
                job.progress.message(f"batch {number} of {len(batches)}")
            own = replace(job, em=em, facts=batch, kept=earlier.facts)
            if not method.published:
                earlier.drop(again(earlier.facts, batch))
                # what a batch adds to a subject must reach the key that its earlier facts have too: their
                # answers are among what its target must give (`hubedit.edit.methods.joint`)
                own = replace(
                    own, kept=earlier.facts, earlier=earlier.without(sharing(em, batch, earlier.facts))
                )
            elif carries:
                own = replace(own, earlier=earlier.squares)
            done.append(run(own))
            for site, factor in done[-1].factors.items():
                part = factor.to(job.em.device)
                live[site] = (live[site] + part).compress() if site in live else part
            parts = sorted((str(site), factor.digest()) for site, factor in live.items())
            em = replace(job.em, identity=f"{job.em.identity}+{digest(parts)[:16]}")
            if carries:
                new = keys_now(job, batch)
                earlier.add(batch, new)
                fresh.add(batch, new)
    edit = done[0] if len(done) == 1 else _together(job, done, live)
    return replace(edit, keys=fresh.keys)


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
