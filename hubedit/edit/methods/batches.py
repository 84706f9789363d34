"""Editing in sequence: batch after batch, each on the model as the batches before have left it.

The facts of earlier batches are protected in the way the method knows: their keys join what it preserves
(MEMIT, EMMET, AlphaEdit: K_prev), and the joint method also asks that their answers stay. What is edited
again is not protected. The result is the exact sum of the batches' factors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from hubedit.edit.asked import leading_sentences
from hubedit.edit.methods.finish import finished, report
from hubedit.edit.methods.prompts import contexts_of
from hubedit.edit.methods.rome import joined
from hubedit.edit.methods.states import at_subject, halves
from hubedit.edit.places import beside
from hubedit.edit.result import Edit
from hubedit.edit.rows import OTHER, edit_rows
from hubedit.edit.search import Found
from hubedit.edit.stages import Job
from hubedit.facts import Fact
from hubedit.facts.answers import normalise
from hubedit.linalg import LowRank
from hubedit.model.editable import EditableModel
from hubedit.model.hooks import applied
from hubedit.model.sites import Site

ONE_BY_ONE = frozenset({"rome", "r-rome", "intattn-rome", "lora"})
"""Methods that keep nothing of earlier facts but their factors, and do sequences by themselves."""


def in_batches(run: Callable[[Job], Edit], job: Job) -> Edit:
    """`run` on batches of `config.batch_size` facts, one after another; on all at once with 0."""
    if job.config.method != "joint":
        # once, as MEMIT does: an edited model writes other sentences (LoRA trains on the prompts alone)
        contexts = [] if job.config.method == "lora" else contexts_of(job.em, job.config)
        job = replace(job, contexts=contexts)
        job = replace(job, earlier=_keys(job, job.kept))
    size = job.config.batch_size or len(job.facts)
    batches = [job.facts[at : at + size] for at in range(0, len(job.facts), size)]
    if len(batches) == 1 or job.config.method in ONE_BY_ONE:
        return run(job)
    done: list[Edit] = []
    live: dict[Site, LowRank] = {}
    em, kept = job.em, list(job.kept)
    with applied(job.em, live):
        for number, batch in enumerate(batches, 1):
            job.progress.message(f"batch {number} of {len(batches)}")
            kept = still(kept, batch)
            earlier = _keys(job, _elsewhere(em, kept, batch) if job.config.method == "joint" else kept)
            done.append(run(replace(job, em=em, facts=batch, kept=kept, earlier=earlier)))
            for site, factor in done[-1].factors.items():
                own = factor.to(job.em.device)
                live[site] = (live[site] + own).compress() if site in live else own
            em = replace(job.em, identity=f"{job.em.identity}+{_digest(live)}")
            kept = [*kept, *batch]
    return _together(job, done, live, size)


def still(kept: Sequence[Fact], batch: Sequence[Fact]) -> list[Fact]:
    """The facts that a batch does not edit again."""
    again = {(normalise(f.subject), f.template) for f in batch} | {normalise(f.prompt) for f in batch}
    return [
        f
        for f in kept
        if (normalise(f.subject), f.template) not in again and normalise(f.prompt) not in again
    ]


def _elsewhere(em: EditableModel, kept: Sequence[Fact], batch: Sequence[Fact]) -> list[Fact]:
    """The facts about other subjects. What the batch adds to a subject must reach the key that its earlier
    facts have too; that their answers stay is asked of what is added (`hubedit.edit.asked.kept_rows`)."""
    return [f for f, n in zip(kept, beside(em, batch, kept), strict=True) if n == OTHER]


def _keys(job: Job, facts: Sequence[Fact]) -> Mapping[Site, Tensor]:
    """The keys (M, d_in) that facts edited before have now, averaged over contexts, at every edited site."""
    if not facts or job.config.method in ONE_BY_ONE:
        return {}
    config, ground = job.config, job.ground
    contexts = job.contexts
    if config.method == "joint":
        contexts = leading_sentences(job.em, ground.text, config.targets.contexts)
    rows = edit_rows(job.em, facts, contexts)
    sites = sorted(ground.moments)
    state = at_subject(job.em, rows, ground.layers[-1], sites)
    mean = halves(rows, len(facts))
    return {site: mean @ state.inputs[site] for site in sites}


def _digest(factors: Mapping[Site, LowRank]) -> str:
    """What tells models with different factors apart."""
    total = hashlib.sha256()
    for site in sorted(factors):
        total.update(str(site).encode())
        for part in (factors[site].B, factors[site].A):
            total.update(part.detach().float().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()[:16]


def _owners(done: Sequence[Edit], live: Mapping[Site, LowRank], size: int) -> dict[Site, tuple[int, ...]]:
    """The facts of all batches' rows, where one of them has more rows than facts or a site is not in all;
    () for a site whose rows were mixed to keep its rank down."""
    sites = sorted({site for edit in done for site in edit.factors})
    if not any(edit.owners for edit in done) and all(site in edit.factors for edit in done for site in sites):
        return {}
    found = {
        site: tuple(
            number * size + fact
            for number, edit in enumerate(done)
            if site in edit.factors
            for fact in edit.owners.get(site) or range(edit.factors[site].rank)
        )
        for site in sites
    }
    return {site: rows if len(rows) == live[site].rank else () for site, rows in found.items()}


def _together(job: Job, done: Sequence[Edit], live: Mapping[Site, LowRank], size: int) -> Edit:
    """One edit of all batches, with reports about the sums."""
    factors = {site: factor.to("cpu") for site, factor in live.items()}
    last = {site: edit.reports[site] for edit in done for site in edit.reports}
    reports = {
        s: report(job.em, s, f, job.ground.moments, last[s].lam, last[s].reached) for s, f in factors.items()
    }
    parts = [edit.targets for edit in done if edit.targets is not None]
    alpha = {layer: sum(edit.alpha[layer] for edit in done) / len(done) for layer in done[-1].alpha}
    whole = finished(job, factors, reports, joined(parts) if parts else None, alpha)
    found = [edit.found for edit in done if edit.found is not None]
    trials = tuple(trial for f in found for trial in f.trials)
    return replace(
        whole,
        owners=_owners(done, live, size),
        found=Found(found[-1].solution, found[-1].trial, trials) if found else None,
        repaired=sum(edit.repaired for edit in done),
    )
