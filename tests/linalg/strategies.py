"""Random matrices for hypothesis: only sizes and a seed are drawn, so that shrinking is quick."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

from hubedit.linalg import LowRank

SEEDS = st.integers(0, 2**31 - 1)
SIZES = st.integers(1, 7)


def normal(seed: int, *shape: int) -> Tensor:
    """Standard normal numbers, float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@dataclass(frozen=True)
class Problem:
    """One solve: keys (N, d_in), residuals (N, d_out), a second moment (d_in, d_in) that may be singular."""

    keys: Tensor
    residuals: Tensor
    moment: Tensor

    def dense(self, lam: float, ridge: float) -> Tensor:
        """R^T K (lam C + K^T K)^-1 by the normal equations, with the ridge on C."""
        c, k = self.preserved(ridge), self.keys
        found: Tensor = torch.linalg.solve(lam * c + k.T @ k, k.T @ self.residuals)
        return found.T

    def preserved(self, ridge: float) -> Tensor:
        """C with the ridge on its diagonal."""
        scale = float(self.moment.diagonal().mean())
        return self.moment + ridge * scale * torch.eye(len(self.moment), dtype=torch.float64)


@st.composite
def problems(draw: st.DrawFn, most_facts: int = 6) -> Problem:
    """Problems with duplicate keys, moments of deficient rank and scales over eight orders of magnitude."""
    facts, width, out = draw(st.integers(1, most_facts)), draw(SIZES), draw(SIZES)
    seed = draw(SEEDS)
    keys, residuals = normal(seed, facts, width), normal(seed + 1, facts, out)
    rows = normal(seed + 2, draw(st.integers(1, 12)), width)
    if draw(st.booleans()):
        keys[-1] = keys[0]
    scale = 10.0 ** draw(st.integers(-4, 4))
    return Problem(keys * scale, residuals, scale**2 * rows.T @ rows / len(rows))


@st.composite
def low_ranks(draw: st.DrawFn, shape: tuple[int, int] | None = None) -> LowRank:
    """Factors of a rank below, at and above what the shape allows, zero among them."""
    out, width = shape or (draw(SIZES), draw(SIZES))
    rank, seed = draw(st.integers(0, 9)), draw(SEEDS)
    return LowRank(normal(seed, out, rank), normal(seed + 1, rank, width))
