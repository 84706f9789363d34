"""LoRA fine-tuning (Hu et al. 2022, arXiv 2106.09685) of the sites that the joint method edits.

The baseline that everybody knows: Adam on the factors so that the facts' prompts give their targets, as
EasyEdit does it (rank 8, scale alpha / rank = 4, learning rate 5e-3, at most 70 steps), without dropout.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from hubedit.edit.methods.finish import finished, report
from hubedit.edit.methods.training import likelihood_gradient
from hubedit.edit.result import Edit
from hubedit.edit.rows import Row, edit_rows
from hubedit.edit.stages import Job
from hubedit.linalg import LowRank
from hubedit.model.editable import EditableModel
from hubedit.model.hooks import applied
from hubedit.model.sites import Site
from hubedit.presets import LORA_RANK

_SCALE = 4.0


def lora(job: Job) -> Edit:
    """Trains one pair of factors a site; further batches go on training the same ones."""
    em, config, ground = job.em, job.config, job.ground
    sites = sorted(ground.moments)
    rank = max(config.rank, 0) or LORA_RANK
    a, b = _start(em, sites, rank, config.seed)
    size = config.batch_size or len(job.facts)
    batches = [job.facts[at : at + size] for at in range(0, len(job.facts), size)]
    job.progress.start("fine-tuning", len(batches) * config.targets.steps, "steps")
    for batch in batches:
        _train(job, edit_rows(em, batch, ()), a, b)
    job.progress.finish()
    job.clock.lap("fine-tuning")
    factors = {s: LowRank(_SCALE * b[s].detach(), a[s].detach()).to("cpu", torch.float32) for s in sites}
    reports = {s: report(em, s, factors[s], ground.moments) for s in sites}
    return finished(job, factors, reports, None, {})


def _start(
    em: EditableModel, sites: Sequence[Site], rank: int, seed: int
) -> tuple[dict[Site, Tensor], dict[Site, Tensor]]:
    """A (rank, d_in) uniform within 1 / sqrt(d_in), B (d_out, rank) zero, as PEFT starts them."""
    generator = torch.Generator().manual_seed(seed)
    a, b = {}, {}
    for site in sites:
        out, width = em.weight(site).shape
        drawn = torch.rand(rank, width, generator=generator) * 2 - 1
        a[site] = (drawn / math.sqrt(width)).to(em.device).requires_grad_()
        b[site] = torch.zeros(out, rank, device=em.device).requires_grad_()
    return a, b


def _train(job: Job, rows: list[Row], a: dict[Site, Tensor], b: dict[Site, Tensor]) -> None:
    """Full-batch Adam on the mean over facts of -log P(target | prompt) / len(target)."""
    em, targets = job.em, job.config.targets
    leaves = [*a.values(), *b.values()]
    adam = torch.optim.Adam(leaves, lr=targets.step, weight_decay=targets.decay)

    def active() -> AbstractContextManager[None]:
        return applied(em, {s: LowRank(_SCALE * b[s], a[s]) for s in a})

    for step in range(targets.steps):
        adam.zero_grad()
        if likelihood_gradient(em, rows, leaves, active) < targets.loss:
            job.progress.advance(targets.steps - step)
            return
        adam.step()
        job.progress.advance()
