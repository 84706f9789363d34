"""Teacher-forced predictions: what a model makes of an answer's tokens when it is shown those before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import exp
from typing import Any

import torch
from torch import Tensor

from hubedit.errors import TokenError
from hubedit.model.editable import EditableModel
from hubedit.model.ending import final_at
from hubedit.model.memory import TokenBudget, positions, release
from hubedit.model.tokens import continuation, encode, pad

Pair = tuple[str, str]
"""A prompt and an answer."""


@dataclass(frozen=True)
class Forced:
    """`labels`: the answer's tokens; `predicted`: the likeliest token at each of their places; `logp`: the
    mean log-probability (nats) of the answer's tokens; `rank`: of its first token, 1 for the likeliest."""

    labels: tuple[int, ...]
    predicted: tuple[int, ...]
    logp: float
    rank: int = 1

    @property
    def accuracy(self) -> float:
        """Share of the answer's tokens that are the likeliest, 0..1."""
        return sum(a == b for a, b in zip(self.labels, self.predicted, strict=True)) / len(self.labels)

    @property
    def probability(self) -> float:
        """Geometric mean of the tokens' probabilities: exp(logp)."""
        return exp(self.logp)

    def to_json(self) -> list[Any]:
        return [list(self.labels), list(self.predicted), self.logp, self.rank]

    @classmethod
    def from_json(cls, data: Sequence[Any]) -> Forced:
        return cls(tuple(data[0]), tuple(data[1]), float(data[2]), int(data[3]))


@torch.no_grad()
def forced(
    em: EditableModel,
    pairs: Iterable[Pair],
    tokens: int = 0,
    joins: Mapping[str, str] | None = None,
    *,
    scored: int = 0,
    done: Callable[[int], object] = lambda _: None,
) -> dict[Pair, Forced]:
    """Predictions for every pair, in batches of at most `tokens` padded tokens, of which at most `scored` are
    compared with the whole vocabulary at once (0: chosen for the device and the vocabulary).
    `joins`: by prompt, what stands between the two, where the text does not decide it. `done` is called with
    the number of pairs of each batch.

    Pairs whose answer has no tokens, or that do not fit the model's context, are left out. Batches that
    do not fit into memory are halved.
    """
    ids: dict[Pair, tuple[tuple[int, ...], tuple[int, ...]]] = {}
    for pair in dict.fromkeys(pairs):
        try:
            prompt = encode(em.tokenizer, pair[0]).ids
            answer = continuation(em.tokenizer, *pair, (joins or {}).get(pair[0]))
        except TokenError:
            continue
        if len(prompt) + len(answer) <= em.max_positions:
            ids[pair] = (prompt, answer)
    order = sorted(ids, key=lambda pair: sum(map(len, ids[pair])))
    lengths = [sum(map(len, ids[pair])) - 1 for pair in order]
    budget, at = TokenBudget(em.device, tokens), 0
    found: dict[Pair, Forced] = {}
    while at < len(order):
        end = budget.take(lengths, at)
        part = order[at:end]
        try:
            results = _batch(em, [ids[pair] for pair in part], scored or positions(em))
        except (RuntimeError, MemoryError) as error:
            budget.shrink(error, len(part), lengths[end - 1])
            results = []
        if not results:
            release(em.device)
            continue
        found.update(zip(part, results, strict=True))
        done(len(part))
        at = end
    return found


def _batch(
    em: EditableModel, part: Sequence[tuple[tuple[int, ...], tuple[int, ...]]], most: int
) -> list[Forced]:
    batch = pad([(*prompt, *answer[:-1]) for prompt, answer in part], em.pad_id, em.device)
    row = [k for k, (_, answer) in enumerate(part) for _ in answer]
    place = [len(prompt) - 1 + j for prompt, answer in part for j in range(len(answer))]
    label = torch.tensor([token for _, answer in part for token in answer], device=em.device)
    states = final_at(em, batch, torch.tensor(row, device=em.device), torch.tensor(place, device=em.device))
    best, own, ranks = _likeliest(em, states, label, most)
    results, at = [], 0
    for _, answer in part:
        span = slice(at, at + len(answer))
        results.append(Forced(answer, tuple(best[span]), sum(own[span]) / len(answer), ranks[at]))
        at += len(answer)
    return results


def _likeliest(
    em: EditableModel, states: Tensor, label: Tensor, most: int
) -> tuple[list[int], list[float], list[int]]:
    """The likeliest token after each state (n, d), and its label's log-probability and rank; at most `most`
    states at once."""
    best: list[int] = []
    own: list[float] = []
    ranks: list[int] = []
    for at in range(0, len(states), most):
        logits = em.head_logits(states[at : at + most]).float()
        best += logits.argmax(-1).tolist()
        wanted = logits.gather(1, label[at : at + most, None])
        own += (wanted[:, 0] - logits.logsumexp(-1)).tolist()
        # counted this way round, a model that gives NaN ranks everything last
        ranks += (logits.shape[-1] - (logits <= wanted).sum(-1) + 1).tolist()
    return best, own, ranks
