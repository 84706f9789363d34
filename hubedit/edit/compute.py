"""From facts to factors: what is measured once, then batch after batch of the chosen method.

Each batch meets the model as the batches before have left it. Their facts are protected in the way the method
knows, or not at all, as published. AlphaEdit and the joint method preserve the keys that each batch had when
it was done; the joint method not those of what is edited again, and it asks that the answers about a subject
of the batch stay. The result is the exact sum of the batches' factors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from hubedit.cache import Cache
from hubedit.config import EditConfig
from hubedit.edit.baseline import measure
from hubedit.edit.batch import EditBatch
from hubedit.edit.methods.context_templates import contexts_of
from hubedit.edit.methods.earlier import Earlier, kept_keys, keys_now
from hubedit.edit.methods.finish import finished, report
from hubedit.edit.methods.registry import function_of
from hubedit.edit.methods.rome import joined
from hubedit.edit.prompts.same_subject import names_of, sharing
from hubedit.edit.result import Clock, Edit, judge_collapse
from hubedit.edit.solve.site_report import SiteReport
from hubedit.facts import Fact
from hubedit.facts.together import again
from hubedit.linalg import LowRank
from hubedit.model.editable import Change, EditableModel
from hubedit.model.sites import Site
from hubedit.presets import METHODS
from hubedit.progress import Progress, Silent

__all__ = ["Edit", "compute"]


def compute(
    em: EditableModel,
    facts: Sequence[Fact],
    config: EditConfig,
    *,
    earlier: Sequence[Fact] = (),
    steps: Sequence[str] = (),
    on: Change | Mapping[Site, LowRank] | None = None,
    cache: Cache | None = None,
    progress: Progress | None = None,
) -> Edit:
    """Edits `facts` into factors for `em`, which is the same model afterwards, also when this raises.

    `on`: an older patch to edit on top of; `earlier`: its facts that must stay so; `steps`: for each of them
    the id of the step that edited it, under which the cache may have its keys. What is measured once is the
    base's, and the same for every patch that stands on another.
    Raises CollapseError when the result would damage the model, ConfigError when options do not fit it.
    """
    cache, progress, clock = cache or Cache(), progress or Silent(), Clock()
    baseline = measure(em, facts, config, cache, progress, clock)
    method, run = METHODS[config.method], function_of(config.method)
    model = em if on is None else em.with_patch(on)
    # once, as MEMIT does: an edited model writes other sentences
    contexts = contexts_of(model, config) if method.published else ()
    batch = EditBatch(model, facts, config, baseline, cache, progress, clock, contexts=contexts)
    before = model.patches[len(em.patches) :]
    if method.one_by_one:
        return _on(before, run(batch), batch)
    size = config.batch_size or len(facts)
    parts = [facts[at : at + size] for at in range(0, len(facts), size)]
    carries = method.keeps_keys or not method.published
    known, fresh = Earlier(), list[Mapping[Site, Tensor]]()
    if carries:
        known.add(earlier, names_of(em, earlier), kept_keys(batch, earlier, steps))
    done: list[Edit] = []
    total: dict[Site, LowRank] = {}
    for number, part in enumerate(parts, 1):
        if len(parts) > 1:
            progress.message(f"batch {number} of {len(parts)}")
        own, names = replace(batch, facts=part), names_of(em, part) if carries else []
        if not method.published:
            known.drop(again(known.facts, part))
            # what a batch adds to a subject must reach the key that its earlier facts have too: their answers
            # are among what its target must give (`hubedit.edit.methods.joint`)
            shared = sharing(names, known.names)
            pairs = [(known.facts[n], number) for n, number in shared.items()]
            weight = config.lam if em.chat else config.lam_for(len(known.facts) + len(part))
            now = replace(config, lam=weight)
            own = replace(own, config=now, same_subject=pairs, earlier_keys=known.without(shared))
        elif carries:
            own = replace(own, earlier_keys=known.squares)
        done.append(run(own))
        for site, factor in done[-1].factors.items():
            new = factor.to(model.device)
            total[site] = (total[site] + new).compress() if site in total else new
        batch = replace(batch, model=model.with_patch(total))
        if carries:
            keys = keys_now(batch, part)
            known.add(part, names, keys)
            fresh.append(keys)
    batch = replace(batch, model=model)
    edit = done[0] if len(done) == 1 else _together(batch, done, total)
    keys = {site: torch.cat([own[site] for own in fresh]) for site in fresh[0]} if fresh else {}
    return replace(_on(before, edit, batch), keys=keys)


def _on(before: Sequence[Mapping[Site, LowRank]], edit: Edit, batch: EditBatch) -> Edit:
    """The edit with reports of the whole: of the changes `before` it and its own, at every site that it
    edits. Raises CollapseError where their sum drifts too far, though neither part alone does."""
    whole, judged, beyond = dict(edit.reports), dict[Site, SiteReport](), dict[Site, float]()
    for site, own in edit.factors.items():
        older = [factors[site].to("cpu", torch.float32) for factors in before if site in factors]
        if not older:  # judged with the edit, as was the perplexity, which is that of the whole
            continue
        found = report(batch.model, site, sum(older, start=own).compress(), batch.baseline)
        whole[site] = replace(whole[site], drift=found.drift, norm=found.norm)
        judged[site] = whole[site]
        if found.drift > 1:
            alone = report(batch.model, site, sum(older[1:], start=older[0]).compress(), batch.baseline).drift
            if alone > 1:  # no edit could be made on such a patch, and this one is not why
                beyond[site] = alone
                del judged[site]
    if beyond:
        site = max(beyond, key=beyond.__getitem__)
        batch.progress.message(f"the older patch already drifts {beyond[site]:.3g} at site {site}")
    judge_collapse(judged, 0.0, 0.0, batch.config, batch.progress, " together with the older patch")
    return replace(edit, whole=whole)


def _together(batch: EditBatch, done: Sequence[Edit], total: Mapping[Site, LowRank]) -> Edit:
    """One edit of all batches, with reports about the sums."""
    factors = {site: factor.to("cpu") for site, factor in total.items()}
    last = {site: edit.reports[site] for edit in done for site in edit.reports}
    reports = {
        s: report(batch.model, s, f, batch.baseline, last[s].lam, last[s].reached) for s, f in factors.items()
    }
    parts = [edit.targets for edit in done if edit.targets is not None]
    alpha = {layer: sum(edit.alpha[layer] for edit in done) / len(done) for layer in done[-1].alpha}
    return finished(batch, factors, reports, joined(parts) if parts else None, alpha)
