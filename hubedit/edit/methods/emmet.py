"""EMMET (Gupta et al. 2024, "A unified framework for model editing", arXiv 2403.14236, eq. 11).

Among all updates with dW K^T = R^T the one that changes preserved outputs least:

    dW = R^T (K C0^-1 K^T + l2 I)^-1 K C0^-1,    C0 = lam C

`l2` is the published safeguard against keys that nearly depend on each other (emmet_lambda, 0.1); with 0 the
constraint is met exactly. By Woodbury's identity this is MEMIT with lambda lam * l2, as the authors note.
"""

from __future__ import annotations

from torch import Tensor

from hubedit.edit.batch import EditBatch
from hubedit.edit.methods.layered import layered, preserved
from hubedit.edit.result import Edit
from hubedit.linalg import KeySpace, LowRank
from hubedit.model.sites import Site


def emmet(batch: EditBatch) -> Edit:
    """EMMET on the MLP projections of the edited layers."""
    config = batch.config

    def solve(site: Site, keys: Tensor, residual: Tensor) -> tuple[LowRank, float]:
        space = KeySpace.of(keys, preserved(batch, site))
        found = space.solve(residual, config.l2) if config.l2 else space.exact(residual)
        return found, config.lam

    return layered(batch, solve)
