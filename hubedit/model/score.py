"""How likely the model finds texts, batched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from hubedit.model.editable import EditableModel
from hubedit.model.ending import final_at
from hubedit.model.memory import positions
from hubedit.model.tokens import pad


@torch.no_grad()
def perplexity(em: EditableModel, rows: Sequence[Sequence[int]], tokens: int = 8192) -> float:
    """exp of the mean negative log-likelihood of token rows; rows of one token do not count.

    inf when the model gives NaN. Raises ValueError when no row has two tokens.
    """
    total, number = 0.0, 0
    rows = sorted((row for row in rows if len(row) > 1), key=len)
    if not rows:
        raise ValueError("perplexity needs a row of two tokens or more")
    for part in _parts(rows, tokens):
        logp = _log_probabilities(em, part)
        total -= sum(logp)
        number += len(logp)
    mean = total / number
    return float(torch.tensor(mean).exp()) if mean == mean else float("inf")


def _parts(rows: Sequence[Sequence[int]], tokens: int) -> Iterator[Sequence[Sequence[int]]]:
    """`rows`, sorted by length, cut into batches of at most `tokens` padded tokens, or one row."""
    at = 0
    while at < len(rows):
        end = at + 1
        while end < len(rows) and (end + 1 - at) * len(rows[end]) <= tokens:
            end += 1
        yield rows[at:end]
        at = end


def _log_probabilities(em: EditableModel, rows: Sequence[Sequence[int]]) -> list[float]:
    """Log-probability of every token of the rows but each one's first, in one forward pass."""
    batch = pad(list(map(tuple, rows)), em.pad_id, em.device)
    row = torch.tensor([k for k, ids in enumerate(rows) for _ in ids[1:]], device=em.device)
    at = torch.tensor([j for ids in rows for j in range(len(ids) - 1)], device=em.device)
    label = torch.tensor([token for ids in rows for token in ids[1:]], device=em.device)
    states = final_at(em, batch, row, at)
    logp: list[float] = []
    most = positions(em)
    for start in range(0, len(label), most):
        logits = em.head_logits(states[start : start + most]).float()
        wanted = logits.gather(1, label[start : start + most, None])
        logp += (wanted[:, 0] - logits.logsumexp(-1)).tolist()
    return logp
