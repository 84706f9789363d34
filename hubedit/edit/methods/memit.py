"""MEMIT (Meng et al. 2023, "Mass-editing memory in a transformer", arXiv 2210.07229, eq. 14).

    dW = R^T K (lam C + K^T K)^-1

Facts edited before are part of what the weights are, and not of C.
"""

from __future__ import annotations

from torch import Tensor

from hubedit.edit.methods.layered import Solve, layered, preserved
from hubedit.edit.result import Edit
from hubedit.edit.stages import Job
from hubedit.linalg import KeySpace, LowRank
from hubedit.model.sites import Site


def memit(job: Job) -> Edit:
    """MEMIT on the MLP projections of the edited layers."""
    return layered(job, ridge(job))


def ridge(job: Job) -> Solve:
    """MEMIT's solve of one site."""

    def solve(site: Site, keys: Tensor, residual: Tensor) -> tuple[LowRank, float]:
        return KeySpace.of(keys, preserved(job, site)).solve(residual, 1.0), job.config.lam

    return solve
