"""How likely the model finds answers: teacher-forced probabilities and ranks, batched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import exp

import torch

from hubedit.model.editable import EditableModel
from hubedit.model.ending import final_at
from hubedit.model.tokens import continuation, encode, pad

_POSITIONS = 512  # rows of logits at once: a vocabulary of 150,000 makes 300 MB of them


@dataclass(frozen=True)
class Score:
    """Of one answer after one prompt: `logp` the mean log-probability of its tokens, `first` the
    probability of its first token, `rank` the first token's rank (1 = the most likely)."""

    logp: float
    first: float
    rank: int


@torch.no_grad()
def scores(
    em: EditableModel,
    prompts: Sequence[str],
    answers: Sequence[str],
    tokens: int = 8192,
    joins: Mapping[str, str] | None = None,
) -> list[Score]:
    """Scores of `answers[i]` after `prompts[i]`; `tokens` padded tokens go through the model at once.
    `joins`: by prompt, what stands between the two, where the text does not decide it."""
    own = joins or {}
    pairs = [
        (encode(em.tokenizer, p).ids, continuation(em.tokenizer, p, a, own.get(p)))
        for p, a in zip(prompts, answers, strict=True)
    ]
    order = sorted(range(len(pairs)), key=lambda i: len(pairs[i][0]) + len(pairs[i][1]))
    result: dict[int, Score] = {}
    for part in _parts(order, [sum(map(len, pair)) for pair in pairs], tokens):
        rows = [(*pairs[i][0], *pairs[i][1][:-1]) for i in part]
        places = [(len(pairs[i][0]) - 1, pairs[i][1]) for i in part]
        logp, ranks = _answers(em, rows, places)
        at = 0
        for i in part:
            each = logp[at : at + len(pairs[i][1])]
            result[i] = Score(sum(each) / len(each), exp(each[0]), ranks[at])
            at += len(each)
    return [result[i] for i in range(len(pairs))]


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
        logp, _ = _answers(em, [rows[i] for i in part], places)
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
        logp, _ = _answers(em, texts, [(0, text[1:]) for text in texts])
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
) -> tuple[list[float], list[int]]:
    """Log-probability and rank of every token of the answers, one after the other, in one forward pass.

    `places`: for each row the position that predicts the answer's first token, and the answer's tokens.
    """
    batch = pad(list(map(tuple, rows)), em.pad_id, em.device)
    row = [k for k, (_, answer) in enumerate(places) for _ in answer]
    place = [first + j for first, answer in places for j in range(len(answer))]
    label = torch.tensor([token for _, answer in places for token in answer], device=em.device)
    states = final_at(em, batch, torch.tensor(row, device=em.device), torch.tensor(place, device=em.device))
    logp: list[float] = []
    ranks: list[int] = []
    for at in range(0, len(label), _POSITIONS):
        logits = em.head_logits(states[at : at + _POSITIONS]).float()
        wanted = logits.gather(1, label[at : at + _POSITIONS, None])
        logp += (wanted[:, 0] - logits.logsumexp(-1)).tolist()
        # counted this way round, a model that gives NaN ranks everything last
        ranks += (logits.shape[-1] - (logits <= wanted).sum(-1) + 1).tolist()
    return logp, ranks
