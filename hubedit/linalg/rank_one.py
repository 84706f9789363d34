"""The update of ROME: one fact, one direction of the input, the value met exactly."""

from __future__ import annotations

import torch
from torch import Tensor

from hubedit.linalg.lowrank import LowRank
from hubedit.linalg.solve import Preserved


def direction(key: Tensor, preserved: Preserved | None = None) -> Tensor:
    """u = C^-1 k / |C^-1 k| (d_in,), or k / |k| without a moment (ROME, Meng et al. 2022, eq. 2). float64."""
    u = key.double()
    if preserved is not None:
        u = torch.cholesky_solve(u.to(preserved.factor)[:, None], preserved.factor)[:, 0]
    unit: Tensor = u / u.norm()
    return unit


def rank_one(u: Tensor, key: Tensor, residual: Tensor) -> LowRank:
    """dW = r u^T / (u . k), so that dW k = r: B (d_out, 1), A (1, d_in), float64.

    u, key (d_in,); residual (d_out,). A key across u asks for an infinite update, and gets one.
    """
    u = u.double()
    return LowRank((residual.to(u) / (key.to(u) @ u))[:, None], u[None].contiguous())
