"""What a patch keeps at a smaller rank: of the change itself, and of what it does to ordinary text.

With the singular value decomposition dW = sum_i s_i u_i v_i^T, rank r keeps of |dW|^2 the share of the first
r of s_i^2. Since the u_i are orthonormal, the change of the output on ordinary text, tr(dW C dW^T) with C the
second moment of the input, is a sum over the same directions, of s_i^2 v_i^T C v_i.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from hubedit.floats import Array
from hubedit.patch.adapter import MOST_RANK, uniform_rank
from hubedit.patch.pair import Pair
from hubedit.patch.value import Patch

SHARE = 0.99
"""Of both norms of every module, `rank_for` keeps at least this share."""


@dataclass(frozen=True)
class Kept:
    """Shares 0..1 that the first 1, 2, ... directions of a module keep: `change`, of |dW|^2, and `text`, of
    tr(dW C dW^T), the same where C is not known."""

    change: Array
    text: Array

    @classmethod
    def of(cls, pair: Pair, moment: Array | None) -> Kept:
        """`moment`: C (d_in, d_in)."""
        _, values, right = pair.svd()
        size = values**2
        own = size if moment is None else size * ((right @ moment.astype(np.float64)) * right).sum(1)
        return cls(_shares(size), _shares(own))

    @property
    def enough(self) -> int:
        """The smallest rank that keeps `SHARE` of both; at least 1."""
        both = np.minimum(self.change, self.text)
        return min(int((both < SHARE).sum()) + 1, len(both))


def rank_for(patch: Patch, moments: Mapping[str, Array]) -> int:
    """The rank that keeps `SHARE` of every module, raised to the next that readers take, and at most the
    largest that they do."""
    needed = {module: Kept.of(pair, moments.get(module)).enough for module, pair in patch.pairs.items()}
    return min(uniform_rank(needed), MOST_RANK)


def cut(patch: Patch, rank: int, moments: Mapping[str, Array]) -> Patch:
    """The best patch of at most `rank` a module; its record tells which shares are kept: `energy` of the
    change, `text` of what it does to ordinary text."""
    kept = {module: Kept.of(pair, moments.get(module)) for module, pair in patch.pairs.items()}
    smaller, energy = patch.truncate(rank)
    text = {m: float(k.text[min(rank, len(k.text)) - 1]) for m, k in kept.items() if m in moments}
    record = {**smaller.record, "truncation": {"rank": rank, "energy": energy, "text": text}}
    return replace(smaller, record=record)


def _shares(values: Array) -> Array:
    total = float(values.sum())
    return np.minimum(np.cumsum(values) / total, 1.0) if total > 0 else np.ones_like(values)
