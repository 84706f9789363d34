"""AlphaEdit (Fang et al. 2025, "Null-space constrained knowledge editing", arXiv 2410.02355, eq. 14).

    dW^T = (P (K^T K + K_prev^T K_prev) + L2 I)^-1 P K^T R,    P = U U^T

with U the eigenvectors of C whose eigenvalues are below a threshold. dW^T lies in the span of U, so with
keys K' = K U the same is

    dW = R^T K' (K'^T K' + K_prev'^T K_prev' + L2 I)^-1 U^T

a ridge solve in the null space, of rank at most N. K_prev are the keys of facts edited before, each batch's
as they were when it was edited.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hubedit.edit.batch import EditBatch
from hubedit.edit.methods.layered import layered
from hubedit.edit.result import Edit
from hubedit.edit.solve.site_report import solve_device
from hubedit.linalg import KeySpace, LowRank, Preserved
from hubedit.model.sites import Site


def alphaedit(batch: EditBatch) -> Edit:
    """AlphaEdit on the MLP projections of the edited layers."""
    l2, device = batch.config.l2, solve_device(batch.model)

    def solve(site: Site, keys: Tensor, residual: Tensor) -> tuple[LowRank, float]:
        basis = batch.baseline.null_spaces[site].to(device)
        moment = l2 * torch.eye(len(basis), dtype=torch.float64)
        if site in batch.earlier_keys:
            moment += batch.earlier_keys[site]
        preserved = Preserved.of(moment, ridge=0.0, device=device, basis=basis)
        return KeySpace.of(keys, preserved).solve(residual, 1.0), l2

    return layered(batch, solve)
