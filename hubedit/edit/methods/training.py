"""What the methods that fine-tune share: the likelihood of the targets, and its gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from hubedit.edit.rows import Row, Rows, by_length
from hubedit.edit.targets.optimise import default_tokens
from hubedit.model.editable import EditableModel
from hubedit.model.memory import fitting, positions


def likelihood_gradient(
    em: EditableModel,
    rows: Sequence[Row],
    leaves: Sequence[Tensor],
    loss_of: Callable[[Sequence[Row]], Tensor],
) -> float:
    """The mean over rows of `loss_of`, their summed loss, and its gradient added to each leaf's `grad`.

    Parts that run out of memory are split.
    """
    total = 0.0

    def work(part: list[Row]) -> None:
        nonlocal total
        loss = loss_of(part) / len(rows)
        # added only when all of it is there, so that a part that runs out of memory leaves nothing behind
        for leaf, grad in zip(leaves, torch.autograd.grad(loss, leaves), strict=True):
            leaf.grad = grad if leaf.grad is None else leaf.grad + grad
        total += float(loss.detach())

    def split(items: Sequence[Row], tokens: int) -> list[list[Row]]:
        return by_length(items, tokens, positions(em))

    fitting(rows, split, work, default_tokens(em), em.device)
    return total


def summed_nll(em: EditableModel, rows: Sequence[Row]) -> Tensor:
    """The sum over rows of the mean negative log-likelihood of their labels."""
    tensors = Rows.of(em, rows)
    logp = tensors.logits(em).float().log_softmax(-1)
    each = -logp.gather(1, tensors.label[:, None])[:, 0]
    lengths = torch.bincount(tensors.scored_row, minlength=len(rows)).float()
    return (each / lengths[tensors.scored_row]).sum()
