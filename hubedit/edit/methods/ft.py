"""LocFT-BF (Yang et al. 2026, "Fine-tuning done right in model editing", arXiv 2509.22072).

Plain fine-tuning of one weight, one layer's down_proj, breadth first: every epoch goes through all facts in
shuffled mini-batches, instead of one fact at a time until it is learnt. The objective is

    mean over facts of  -log P(target <eos> | prompt) / (len(target) + 1)

by Adam with the weight decay of AdamW (published: none). A mini-batch whose loss is below `loss` makes no
step, and an epoch whose mean is below it is the last, as in the authors' code. Their layers are searched for
each model; without one it is about a third of the depth here.

The dense change of the weight becomes exact factors by an SVD; `rank` truncates them like any patch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hubedit.edit.batch import EditBatch
from hubedit.edit.methods.finish import finished, report
from hubedit.edit.methods.training import likelihood_gradient, summed_nll
from hubedit.edit.result import Edit
from hubedit.edit.rows import Row, edit_rows
from hubedit.edit.solve.site_report import solve_device
from hubedit.errors import ConfigError
from hubedit.linalg import LowRank
from hubedit.model.editable import EditableModel
from hubedit.model.hooks import behind
from hubedit.model.memory import free_memory
from hubedit.model.sites import Site


def ft(batch: EditBatch) -> Edit:
    """Fine-tunes the MLP projection of one layer. Raises ConfigError where that does not fit the model or the
    device."""
    em, baseline = batch.model, batch.baseline
    site = Site(baseline.layers[0], "mlp")
    check_fits(em.weight(site).numel(), free_memory(em.weight(site).device))
    rows = ended(em, edit_rows(em, batch.facts, ()))
    change = _train(batch, site, rows)
    factors = {site: exact(change.detach().to(solve_device(em))).to("cpu", torch.float32)}
    batch.clock.lap("fine-tuning")
    reports = {site: report(em, site, factors[site], baseline)}
    return finished(batch, factors, reports, None, {})


def _train(batch: EditBatch, site: Site, rows: list[Row]) -> Tensor:
    """The change (d_out, d_in) of a site's weight, float32; the weight itself stays as it is."""
    em, config = batch.model, batch.config.targets
    weight = em.weight(site)
    change = torch.zeros(weight.shape, device=weight.device, requires_grad=True)

    def add(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        x: Tensor = args[0].float()
        return (output.float() + x @ change.T).to(output.dtype)

    def loss_of(part: Sequence[Row]) -> Tensor:
        with behind(em.site(site), add):
            return summed_nll(em, part)

    adam = torch.optim.AdamW([change], lr=config.step, weight_decay=config.decay)
    generator = torch.Generator().manual_seed(batch.config.seed)
    size = batch.config.batch_size or len(rows)
    batch.progress.start("fine-tuning", config.steps, "epochs")
    for epoch in range(config.steps):
        order, total = torch.randperm(len(rows), generator=generator).tolist(), 0.0
        for at in range(0, len(rows), size):
            part = [rows[n] for n in order[at : at + size]]
            adam.zero_grad()
            loss = likelihood_gradient(em, part, [change], loss_of)
            total += loss * len(part) / len(rows)
            if loss >= config.loss:
                adam.step()
        if total < config.loss:
            batch.progress.advance(config.steps - epoch)
            break
        batch.progress.advance()
    batch.progress.finish(f"loss {total:.3f}")
    return change


def ended(em: EditableModel, rows: list[Row]) -> list[Row]:
    """The rows with the end of the text as their last label. Raises ConfigError for a tokenizer without."""
    end = em.tokenizer.eos_token_id
    if end is None:
        raise ConfigError(
            "ft trains the end of the answer too, and this tokenizer has no end-of-sequence token",
            "take another --method, such as lora",
        )
    return [Row(r.fact, (*r.ids, r.labels[-1]), r.last, (*r.labels, int(end))) for r in rows]


def check_fits(numbers: int, free: int) -> None:
    """Raises ConfigError where a weight's change, its gradient and Adam's two moments, float32, are larger
    than the `free` bytes of its device."""
    needed = 4 * 4 * numbers
    if needed > free:
        raise ConfigError(
            f"fine-tuning a weight of {numbers:,} numbers takes {needed / 1e9:.1f} GB beside the model, and "
            f"{free / 1e9:.1f} GB are free",
            "use --device cpu, or --method lora, which trains a few numbers only",
        )


def exact(change: Tensor) -> LowRank:
    """Factors of a matrix (d_out, d_in), equal to rounding, of its numerical rank (at least 1). float64."""
    left, values, right = torch.linalg.svd(change.double(), full_matrices=False)
    rank = max(1, int((values > values[0] * 1e-7).sum()))
    root = values[:rank].sqrt()
    return LowRank(left[:, :rank] * root, root[:, None] * right[:rank])
