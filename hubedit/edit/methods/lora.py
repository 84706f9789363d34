"""LoRA fine-tuning (Hu et al. 2022, arXiv 2106.09685) of the sites that IntAttn-Edit edits.

The baseline that everybody knows: Adam on the factors so that the facts' prompts give their targets, as
EasyEdit does it (rank 8, scale alpha / rank = 4, learning rate 5e-3, at most 70 steps), without dropout.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hubedit.edit.batch import EditBatch
from hubedit.edit.methods.finish import finished, report
from hubedit.edit.methods.training import likelihood_gradient, summed_nll
from hubedit.edit.result import Edit
from hubedit.edit.rows import Row, edit_rows
from hubedit.linalg import LowRank
from hubedit.model.editable import EditableModel
from hubedit.model.sites import Site
from hubedit.presets import LORA_RANK

_SCALE = 4.0


def lora(batch: EditBatch) -> Edit:
    """Trains one pair of factors a site; further batches go on training the same ones."""
    em, config, moments = batch.model, batch.config, batch.baseline.moments
    sites = sorted(moments)
    rank = max(config.rank, 0) or LORA_RANK
    a, b = _start(em, sites, rank, config.seed)
    size = config.batch_size or len(batch.facts)
    parts = [batch.facts[at : at + size] for at in range(0, len(batch.facts), size)]
    batch.progress.start("fine-tuning", len(parts) * config.targets.steps, "steps")
    for facts in parts:
        _train(batch, edit_rows(em, facts, ()), a, b)
    batch.progress.finish()
    batch.clock.lap("fine-tuning")
    factors = {s: LowRank(_SCALE * b[s].detach(), a[s].detach()).to("cpu", torch.float32) for s in sites}
    reports = {s: report(em, s, factors[s], batch.baseline) for s in sites}
    return finished(batch, factors, reports, None, {})


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


def _train(batch: EditBatch, rows: list[Row], a: dict[Site, Tensor], b: dict[Site, Tensor]) -> None:
    """Full-batch Adam on the mean over facts of -log P(target | prompt) / len(target)."""
    em, targets = batch.model, batch.config.targets
    leaves = [*a.values(), *b.values()]
    adam = torch.optim.Adam(leaves, lr=targets.step, weight_decay=targets.decay)

    def loss_of(part: Sequence[Row]) -> Tensor:
        return summed_nll(em.with_patch({s: LowRank(_SCALE * b[s], a[s]) for s in a}), part)

    for step in range(targets.steps):
        adam.zero_grad()
        if likelihood_gradient(em, rows, leaves, loss_of) < targets.loss:
            batch.progress.advance(targets.steps - step)
            return
        adam.step()
        batch.progress.advance()
