"""What an edit does to unrelated text: divergence from the unedited model, and perplexity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, isfinite
from typing import Any

import torch
from torch import Tensor

from hubedit.evaluate.bootstrap import Interval, intervals
from hubedit.model.editable import EditableModel
from hubedit.model.hooks import run
from hubedit.model.memory import TokenBudget, positions, release
from hubedit.model.tokens import Batch, pad

_LARGEST = 700  # nats a token: exp of more is no float


@dataclass(frozen=True)
class Drift:
    """Sums over each row of text: `tokens` predicted, `nll_before` and `nll_after` of the text, and `kl`,
    KL(P before || P after), all in nats. Without an edit `nll_after` and `kl` are empty."""

    tokens: tuple[int, ...]
    nll_before: tuple[float, ...]
    nll_after: tuple[float, ...] = ()
    kl: tuple[float, ...] = ()

    @property
    def perplexity_before(self) -> float | None:
        return _perplexity(self.nll_before, self.tokens)

    @property
    def perplexity_after(self) -> float | None:
        """None when nothing was edited, or the edited model gives NaN."""
        return _perplexity(self.nll_after, self.tokens)

    def to_json(self, seed: int = 0) -> dict[str, Any]:
        """The keys of report.json that it fills: nats a token, over `n` tokens."""
        data: dict[str, Any] = {
            "perplexity_before": self.perplexity_before,
            "perplexity_after": self.perplexity_after,
        }
        count, between = sum(self.tokens), self._intervals(seed)
        if self.nll_after:
            change = (sum(self.nll_after) - sum(self.nll_before)) / max(count, 1)
            data["perplexity_ratio"] = exp(change) if isfinite(change) and change < _LARGEST else None
        if data["perplexity_before"] is not None:
            data["perplexity"] = {"n": count}
            for key, name in (("before", "interval_before"), ("after", "interval")):
                if (pair := between.get(key)) and pair[1] < _LARGEST:
                    # the percentiles of exp(x) are exp of those of x
                    data["perplexity"][name] = [exp(end) for end in pair]
        if self.kl and isfinite(sum(self.kl)):
            data["kl"] = {"mean": sum(self.kl) / count, "n": count}
            if pair := between.get("kl"):
                data["kl"]["interval"] = list(pair)
        return {key: value for key, value in data.items() if value is not None}

    def _intervals(self, seed: int) -> dict[str, Interval]:
        """Of the three means a token. Rows are drawn again; each counts by its tokens."""
        sums = {"before": self.nll_before, "after": self.nll_after, "kl": self.kl}
        rows = {
            name: [[total / n] * n for total, n in zip(values, self.tokens, strict=True)]
            for name, values in sums.items()
            if values and isfinite(sum(values))
        }
        return intervals(rows, seed=seed)


@torch.no_grad()
def drift(
    before: EditableModel, after: EditableModel | None, rows: Sequence[Sequence[int]], tokens: int = 0
) -> Drift:
    """Both models on rows of tokens, in batches; rows of one token are left out.

    No distribution is kept: the two models see each batch one after the other.
    """
    em = before
    texts = sorted((tuple(row[: em.max_positions]) for row in rows if len(row) > 1), key=len)
    budget, at = TokenBudget(em.device, tokens), 0
    sums: list[list[float]] = []
    while at < len(texts):
        part = texts[at : budget.take([len(row) for row in texts], at)]
        try:
            found = _batch(before, after, part)
        except (RuntimeError, MemoryError) as error:
            budget.shrink(error, len(part), len(part[-1]))
            found = []
        if not found:
            release(em.device)
            continue
        sums += found
        at += len(part)
    counts = tuple(len(row) - 1 for row in texts)
    old = tuple(row[0] for row in sums)
    if after is None:
        return Drift(counts, old)
    return Drift(counts, old, tuple(row[1] for row in sums), tuple(row[2] for row in sums))


def _batch(
    before: EditableModel, after: EditableModel | None, part: Sequence[tuple[int, ...]]
) -> list[list[float]]:
    """(nll before, nll after, KL) summed over each row."""
    em = before
    batch = pad(part, em.pad_id, em.device)
    keep = batch.mask[:, 1:].bool()
    label = batch.ids[:, 1:][keep]
    row = torch.arange(len(part), device=em.device)[:, None].expand_as(keep)[keep]
    old = _states(before, batch, keep)
    new = _states(after, batch, keep) if after is not None else None
    total = torch.zeros(len(part), 3, dtype=torch.float64, device=em.device)
    most = positions(em)
    for at in range(0, len(label), most):
        span = slice(at, at + most)
        logp = _log_probabilities(em, old[span])
        other = _log_probabilities(after, new[span]) if after is not None and new is not None else None
        values = _compare(logp, other, label[span])
        total.index_add_(0, row[span], values.double())
    return [[float(v) for v in values] for values in total.tolist()]


def _states(em: EditableModel, batch: Batch, keep: Tensor) -> Tensor:
    """The last residual stream (n, d) at the positions that predict a token."""
    last = em.num_layers - 1
    return run(em, batch, hidden=[last]).hidden[last][:, :-1][keep]


def _log_probabilities(em: EditableModel, states: Tensor) -> Tensor:
    return em.head_logits(states).float().log_softmax(-1)


def _compare(before: Tensor, after: Tensor | None, label: Tensor) -> Tensor:
    """(n, 3): nll before, nll after, KL of each position; zeros where there is no model after."""
    nll = -before.gather(1, label[:, None])[:, 0]
    if after is None:
        return torch.stack([nll, torch.zeros_like(nll), torch.zeros_like(nll)], 1)
    # below zero only by rounding
    kl = (before.exp() * (before - after)).sum(-1).clamp_min(0)
    return torch.stack([nll, -after.gather(1, label[:, None])[:, 0], kl], 1)


def _perplexity(nll: Sequence[float], tokens: Sequence[int]) -> float | None:
    if not nll or not sum(tokens):
        return None
    mean = sum(nll) / sum(tokens)
    return exp(mean) if isfinite(mean) and mean < _LARGEST else None
