"""The head at some positions, over the whole vocabulary or the part of it that matters there."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hubedit.model.editable import EditableModel
from hubedit.model.memory import positions


@dataclass(frozen=True)
class Head:
    """The head at some positions: the whole vocabulary, or its likeliest `entries` (c,) and the others as
    one.

    `others` (s, 1): logit of all other entries together at each position, as it is before anything changes. A
    large vocabulary is then a few thousand columns; docs/performance.md has the error. Empty: the whole
    vocabulary.
    """

    entries: Tensor
    others: Tensor

    def logits(self, em: EditableModel, final: Tensor) -> Tensor:
        """float32 (s, c + 1), or (s, vocabulary). Gradients flow to `final` (s, d)."""
        if not len(self.entries):
            return em.head_logits(final).float()
        return torch.cat([em.head_logits(final, self.entries).float(), self.others], 1)

    def labels(self, label: Tensor) -> Tensor:
        """Columns of entries that are among them."""
        return torch.searchsorted(self.entries, label) if len(self.entries) else label

    def only(self, keep: Tensor) -> Head:
        """At some of the positions."""
        return Head(self.entries, self.others[keep]) if len(self.entries) else self

    def columns(self, logp: Tensor) -> Tensor:
        """Log-probabilities (s, vocabulary) of the entries, and of all others together: (s, c + 1)."""
        if not len(self.entries):
            return logp
        kept = logp[:, self.entries]
        others = torch.log1p(-kept.exp().sum(1, keepdim=True).clamp_max(1 - 1e-6))
        return torch.cat([kept, others], 1)


WHOLE = Head(torch.empty(0, dtype=torch.long), torch.empty(0))
"""The whole vocabulary."""


def likeliest(em: EditableModel, final: Tensor, label: Tensor, entries: int) -> Head:
    """The `entries` likeliest at each of the positions (s, d), and the labels (s,); the whole vocabulary
    where that has at most four times as many."""
    if not 0 < 4 * entries * len(final) < em.vocabulary:
        return WHOLE
    best = [label]
    parts = torch.split(final, positions(em))
    for part in parts:
        best.append(em.head_logits(part).topk(entries, -1).indices.flatten())
    kept = torch.unique(torch.cat(best))
    others = []
    for part in parts:
        logits = em.head_logits(part).float()
        logits[:, kept] = -torch.inf
        others.append(logits.logsumexp(-1, keepdim=True))
    return Head(kept, torch.cat(others))
