"""Editing in sequence: batch after batch, each on the model as the batches before have left it.

The facts of earlier batches are protected in the way the method knows, or not at all, as published.
AlphaEdit and the joint method preserve the keys that each batch had when it was done; the joint method not
those of what is edited again, and it asks that the answers about a subject of the batch stay. The result is
the exact sum of the batches' factors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from hubedit.edit.batch import EditBatch
from hubedit.edit.methods.context_templates import contexts_of
from hubedit.edit.methods.earlier import Earlier, kept_keys, keys_now
from hubedit.edit.methods.finish import finished, report
from hubedit.edit.methods.rome import joined
from hubedit.edit.prompts.same_subject import sharing
from hubedit.edit.result import Edit
from hubedit.facts.together import again
from hubedit.linalg import LowRank
from hubedit.model.sites import Site
from hubedit.presets import METHODS


def in_batches(run: Callable[[EditBatch], Edit], batch: EditBatch, steps: Sequence[str] = ()) -> Edit:
    """`run` on batches of `config.batch_size` facts, one after another; on all at once with 0.

    `steps`: for each earlier fact the id of the step that edited it, under which the cache may have its keys.
    """
    method, model, facts = METHODS[batch.config.method], batch.model, batch.facts
    if method.published:
        # once, as MEMIT does: an edited model writes other sentences
        batch = replace(batch, contexts=contexts_of(model, batch.config))
    if method.one_by_one:
        return run(batch)
    size = batch.config.batch_size or len(facts)
    parts = [facts[at : at + size] for at in range(0, len(facts), size)]
    carries = method.keeps_keys or not method.published
    earlier, fresh = Earlier(), Earlier()
    if carries:
        earlier.add(batch.earlier_facts, kept_keys(batch, steps))
    done: list[Edit] = []
    total: dict[Site, LowRank] = {}
    for number, part in enumerate(parts, 1):
        if len(parts) > 1:
            batch.progress.message(f"batch {number} of {len(parts)}")
        if not method.published:
            earlier.drop(again(earlier.facts, part))
        own = replace(batch, facts=part, earlier_facts=list(earlier.facts))
        if not method.published:
            # what a batch adds to a subject must reach the key that its earlier facts have too: their answers
            # are among what its target must give (`hubedit.edit.methods.joint`)
            own = replace(own, earlier_keys=earlier.without(sharing(batch.model, part, earlier.facts)))
        elif carries:
            own = replace(own, earlier_keys=earlier.squares)
        done.append(run(own))
        for site, factor in done[-1].factors.items():
            new = factor.to(model.device)
            total[site] = (total[site] + new).compress() if site in total else new
        batch = replace(batch, model=model.with_patch(total))
        if carries:
            keys = keys_now(batch, part)
            earlier.add(part, keys)
            fresh.add(part, keys)
    edit = done[0] if len(done) == 1 else _together(replace(batch, model=model), done, total)
    return replace(edit, keys=fresh.keys)


def _together(batch: EditBatch, done: Sequence[Edit], total: Mapping[Site, LowRank]) -> Edit:
    """One edit of all batches, with reports about the sums."""
    factors = {site: factor.to("cpu") for site, factor in total.items()}
    last = {site: edit.reports[site] for edit in done for site in edit.reports}
    moments = batch.baseline.moments
    reports = {
        s: report(batch.model, s, f, moments, last[s].lam, last[s].reached) for s, f in factors.items()
    }
    parts = [edit.targets for edit in done if edit.targets is not None]
    alpha = {layer: sum(edit.alpha[layer] for edit in done) / len(done) for layer in done[-1].alpha}
    return finished(batch, factors, reports, joined(parts) if parts else None, alpha)
