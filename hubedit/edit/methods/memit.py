"""MEMIT (Meng et al. 2023, "Mass-editing memory in a transformer", arXiv 2210.07229, eq. 14).

    dW = R^T K (lam C + K^T K)^-1

Facts edited before are part of what the weights are, and not of C.
"""

from __future__ import annotations

from torch import Tensor

from hubedit.edit.batch import EditBatch
from hubedit.edit.methods.layered import Solve, layered, preserved
from hubedit.edit.result import Edit
from hubedit.linalg import KeySpace, LowRank
from hubedit.model.sites import Site


def memit(batch: EditBatch) -> Edit:
    """MEMIT on the MLP projections of the edited layers."""
    return layered(batch, ridge(batch))


def ridge(batch: EditBatch) -> Solve:
    """MEMIT's solve of one site; lam is a part of what `preserved` gives."""

    def solve(site: Site, keys: Tensor, residual: Tensor) -> tuple[LowRank, float]:
        return KeySpace.of(keys, preserved(batch, site)).solve(residual, 1.0), batch.config.lam

    return solve
