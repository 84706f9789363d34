"""How likely the model finds answers: teacher-forced probabilities and ranks, batched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from hubedit.model.editable import EditableModel
from hubedit.model.hooks import run
from hubedit.model.tokens import continuation, encode, pad


@dataclass(frozen=True)
class Score:
    """Of one answer after one prompt: `logp` the mean log-probability of its tokens, `first` the
    probability of its first token, `rank` the first token's rank (1 = the most likely)."""

    logp: float
    first: float
    rank: int


@torch.no_grad()
def scores(
    em: EditableModel, prompts: Sequence[str], answers: Sequence[str], tokens: int = 8192
) -> list[Score]:
    """Scores of `answers[i]` after `prompts[i]`; `tokens` padded tokens go through the model at once."""
    pairs = [
        (encode(em.tokenizer, p).ids, continuation(em.tokenizer, p, a))
        for p, a in zip(prompts, answers, strict=True)
    ]
    order = sorted(range(len(pairs)), key=lambda i: len(pairs[i][0]) + len(pairs[i][1]))
    result: list[Score | None] = [None] * len(pairs)
    at = 0
    while at < len(order):
        end = at + 1
        while end < len(order) and (end + 1 - at) * sum(map(len, pairs[order[end]])) <= tokens:
            end += 1
        part = order[at:end]
        batch = pad([(*pairs[i][0], *pairs[i][1][:-1]) for i in part], em.pad_id, em.device)
        last = em.num_layers - 1
        hidden = run(em, batch, hidden=[last]).hidden[last]
        for k, i in enumerate(part):
            ids, answer = pairs[i]
            span = torch.arange(len(ids) - 1, len(ids) - 1 + len(answer), device=em.device)
            logp = em.head_logits(hidden[k, span]).float().log_softmax(-1)
            label = torch.tensor(answer, device=em.device)
            own = logp.gather(1, label[:, None])[:, 0]
            # counted this way round, a model that gives NaN ranks everything last
            rank = len(logp[0]) - int((logp[0] <= own[0]).sum()) + 1
            result[i] = Score(float(own.mean()), float(own[0].exp()), rank)
        at = end
    return [s for s in result if s is not None]


@torch.no_grad()
def perplexity(em: EditableModel, rows: Sequence[Sequence[int]], tokens: int = 8192) -> float:
    """exp of the mean negative log-likelihood of token rows; rows of one token do not count.

    inf when the model gives NaN. Raises ValueError when no row has two tokens.
    """
    total, number = 0.0, 0
    rows = sorted((row for row in rows if len(row) > 1), key=len)
    if not rows:
        raise ValueError("perplexity needs a row of two tokens or more")
    at = 0
    while at < len(rows):
        end = at + 1
        while end < len(rows) and (end + 1 - at) * len(rows[end]) <= tokens:
            end += 1
        part = [tuple(r) for r in rows[at:end]]
        batch = pad(part, em.pad_id, em.device)
        last = em.num_layers - 1
        hidden = run(em, batch, hidden=[last]).hidden[last]
        for k, ids in enumerate(part):
            logp = em.head_logits(hidden[k, : len(ids) - 1]).float().log_softmax(-1)
            label = torch.tensor(ids[1:], device=em.device)
            total -= float(logp.gather(1, label[:, None]).sum())
            number += len(ids) - 1
        at = end
    mean = total / number
    return float(torch.tensor(mean).exp()) if mean == mean else float("inf")
