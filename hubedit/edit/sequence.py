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

from hubedit.edit.batch import EditBatch
from hubedit.edit.methods.context_templates import contexts_of
from hubedit.edit.methods.finish import finished, report
from hubedit.edit.methods.rome import joined
from hubedit.edit.prompts.same_subject import sharing
from hubedit.edit.result import Edit
from hubedit.edit.rows import edit_rows
from hubedit.edit.solve.keys import at_subject, keys
from hubedit.facts import Fact
from hubedit.facts.answers import normalise
from hubedit.linalg import LowRank
from hubedit.model.sites import Site
from hubedit.presets import METHODS


def in_batches(run: Callable[[EditBatch], Edit], batch: EditBatch) -> Edit:
    """`run` on batches of `config.batch_size` facts, one after another; on all at once with 0."""
    method, model, facts = METHODS[batch.config.method], batch.model, batch.facts
    if method.published:
        # once, as MEMIT does: an edited model writes other sentences
        batch = replace(batch, contexts=contexts_of(model, batch.config))
    size = batch.config.batch_size or len(facts)
    parts = [facts[at : at + size] for at in range(0, len(facts), size)]
    earlier = list(batch.earlier_facts)
    batch = replace(batch, earlier_keys=_keys(batch, earlier) if method.keeps_keys else {})
    if len(parts) == 1 or method.one_by_one:
        return run(_with_keys(batch))
    done: list[Edit] = []
    total: dict[Site, LowRank] = {}
    for number, part in enumerate(parts, 1):
        batch.progress.message(f"batch {number} of {len(parts)}")
        earlier = still(earlier, part)
        done.append(run(_with_keys(replace(batch, facts=part, earlier_facts=earlier))))
        for site, factor in done[-1].factors.items():
            own = factor.to(model.device)
            total[site] = (total[site] + own).compress() if site in total else own
        batch = replace(batch, model=model.with_patch(total))
        earlier = [*earlier, *part]
        if method.keeps_keys:
            batch = replace(batch, earlier_keys=_joined(batch.earlier_keys, _keys(batch, part)))
    return _together(replace(batch, model=model), done, total)


def still(kept: Sequence[Fact], batch: Sequence[Fact]) -> list[Fact]:
    """The facts that a batch does not edit again."""
    again = {(normalise(f.subject), f.template) for f in batch} | {normalise(f.prompt) for f in batch}
    return [
        f
        for f in kept
        if (normalise(f.subject), f.template) not in again and normalise(f.prompt) not in again
    ]


def _with_keys(batch: EditBatch) -> EditBatch:
    """For hubedit's own method: with the keys that the earlier facts about other subjects have now.

    What a batch adds to a subject must reach the key that its earlier facts have too; their answers are among
    what its target must give (`hubedit.edit.methods.joint`).
    """
    if METHODS[batch.config.method].published:
        return batch
    shared = sharing(batch.model, batch.facts, batch.earlier_facts)
    others = [fact for n, fact in enumerate(batch.earlier_facts) if n not in shared]
    return replace(batch, earlier_keys=_keys(batch, others))


def _keys(batch: EditBatch, facts: Sequence[Fact]) -> Mapping[Site, Tensor]:
    """The keys (M, d_in) that facts edited before have now, averaged over contexts, at every edited site."""
    if not facts:
        return {}
    rows = edit_rows(batch.model, facts, batch.contexts)
    sites = sorted(batch.baseline.moments)
    state = at_subject(batch.model, rows, batch.baseline.layers[-1], sites)
    return {site: keys(state, rows, len(facts), site) for site in sites}


def _joined(earlier: Mapping[Site, Tensor], own: Mapping[Site, Tensor]) -> dict[Site, Tensor]:
    """Keys of earlier facts, and those of one more batch."""
    return {site: torch.cat([earlier[site], new]) if site in earlier else new for site, new in own.items()}


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
