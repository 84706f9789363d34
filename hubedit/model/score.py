"""How likely the model finds texts, batched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from hubedit.model.editable import EditableModel
from hubedit.model.ending import final_at
from hubedit.model.memory import positions
from hubedit.model.tokens import pad


@torch.no_grad()
def likelihoods(
    em: EditableModel, rows: Sequence[Sequence[int]], starts: Sequence[int], tokens: int = 8192
) -> list[float]:
    """The log-probability of each token row from place `starts[i]` on; a first token counts 0."""
    starts = [max(start, 1) for start in starts]
    order = sorted((i for i, s in enumerate(starts) if s < len(rows[i])), key=lambda i: len(rows[i]))
    result = [0.0] * len(rows)
    for part in _parts(order, [len(row) for row in rows], tokens):
        places = [(starts[i] - 1, tuple(rows[i][starts[i] :])) for i in part]
        logp = _answers(em, [rows[i] for i in part], places)
        at = 0
        for i, (_, answer) in zip(part, places, strict=True):
            result[i] = sum(logp[at : at + len(answer)])
            at += len(answer)
    return result


@torch.no_grad()
def perplexity(em: EditableModel, rows: Sequence[Sequence[int]], tokens: int = 8192) -> float:
    """exp of the mean negative log-likelihood of token rows; rows of one token do not count.

    inf when the model gives NaN. Raises ValueError when no row has two tokens.
    """
    total, number = 0.0, 0
    rows = sorted((row for row in rows if len(row) > 1), key=len)
    if not rows:
        raise ValueError("perplexity needs a row of two tokens or more")
    for part in _parts(range(len(rows)), [len(row) for row in rows], tokens):
        texts = [tuple(rows[i]) for i in part]
        logp = _answers(em, texts, [(0, text[1:]) for text in texts])
        total -= sum(logp)
        number += len(logp)
    mean = total / number
    return float(torch.tensor(mean).exp()) if mean == mean else float("inf")


def _parts(order: Sequence[int], lengths: Sequence[int], tokens: int) -> Iterator[Sequence[int]]:
    """`order`, which goes by length, cut into batches of at most `tokens` padded tokens, or one row."""
    at = 0
    while at < len(order):
        end = at + 1
        while end < len(order) and (end + 1 - at) * lengths[order[end]] <= tokens:
            end += 1
        yield order[at:end]
        at = end


def _answers(
    em: EditableModel, rows: Sequence[Sequence[int]], places: Sequence[tuple[int, Sequence[int]]]
) -> list[float]:
    """Log-probability of every token of the answers, one after the other, in one forward pass.

    `places`: for each row the position that predicts the answer's first token, and the answer's tokens.
    """
    batch = pad(list(map(tuple, rows)), em.pad_id, em.device)
    row = [k for k, (_, answer) in enumerate(places) for _ in answer]
    place = [first + j for first, answer in places for j in range(len(answer))]
    label = torch.tensor([token for _, answer in places for token in answer], device=em.device)
    states = final_at(em, batch, torch.tensor(row, device=em.device), torch.tensor(place, device=em.device))
    logp: list[float] = []
    most = positions(em)
    for at in range(0, len(label), most):
        logits = em.head_logits(states[at : at + most]).float()
        wanted = logits.gather(1, label[at : at + most, None])
        logp += (wanted[:, 0] - logits.logsumexp(-1)).tolist()
    return logp
