"""What the methods that fine-tune share: the likelihood of the targets, and its gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from hubedit.edit.rows import Row, Rows, by_length
from hubedit.edit.targets.optimise import default_tokens
from hubedit.model.editable import EditableModel
from hubedit.model.memory import fitting


def likelihood_gradient(
    em: EditableModel,
    rows: Sequence[Row],
    leaves: Sequence[Tensor],
    active: Callable[[], AbstractContextManager[None]],
) -> float:
    """The mean over rows of -log P(labels) / len(labels), and its gradient added to each leaf's `grad`.

    `active()`: a context in which the model computes with the leaves. Parts that run out of memory are split.
    """
    total = 0.0

    def work(part: list[Row]) -> None:
        nonlocal total
        with active():
            loss = summed_nll(em, part) / len(rows)
        # added only when all of it is there, so that a part that runs out of memory leaves nothing behind
        for leaf, grad in zip(leaves, torch.autograd.grad(loss, leaves), strict=True):
            leaf.grad = grad if leaf.grad is None else leaf.grad + grad
        total += float(loss.detach())

    fitting(lambda budget: by_length(rows, budget), work, default_tokens(em), em.device)
    return total


def summed_nll(em: EditableModel, rows: Sequence[Row]) -> Tensor:
    """The sum over rows of the mean negative log-likelihood of their labels."""
    tensors = Rows.of(em, rows)
    logp = tensors.logits(em).float().log_softmax(-1)
    each = -logp.gather(1, tensors.label[:, None])[:, 0]
    lengths = torch.bincount(tensors.scored_row, minlength=len(rows)).float()
    return (each / lengths[tensors.scored_row]).sum()
