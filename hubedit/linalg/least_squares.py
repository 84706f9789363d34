"""Regularised least squares with several rows a fact: the right factor of an update.

    dW = argmin  sum_r w_r |dW k_r - delta_f(r)|^2  +  tr(dW P dW^T)
       = delta^T A,    A = Kbar (sum_r w_r k_r k_r^T + P)^-1,    Kbar_f = sum of w_r k_r over the rows of
       fact f

(MEMIT, Meng et al. 2023, eq. 14, with every context's key as a row of its own in place of their mean). The
rank is at most the number of facts. One Cholesky factor of d_in x d_in, whatever the number of facts.
"""

from __future__ import annotations

import torch
from torch import Tensor

_ROWS = 4096  # that are on the device at once


def right_factor(keys: Tensor, owner: Tensor, weight: Tensor, preserved: Tensor, count: int) -> Tensor:
    """A (N, d_in), float64, from `keys` (n, d_in), the fact of each row `owner` (n,), `weight` (n,) and P
    (d_in, d_in), float64 and positive semidefinite, which is overwritten: a second copy of 18,944 x 18,944
    numbers would take 2.9 GB; `count`: N.

    Computed where P is, on a few rows at a time, from keys on any device; the result lies with them. A small
    ridge, 1e-6 of the mean diagonal, is added where the sum is singular to rounding.
    """
    place, total = preserved.device, preserved
    mean = torch.zeros(count, keys.shape[1], dtype=torch.float64, device=keys.device)
    for at in range(0, len(keys), _ROWS):
        part = slice(at, at + _ROWS)
        k, w = keys[part].to(place, torch.float64), weight[part].to(place, torch.float64)[:, None]
        total.addmm_(k.T, w * k)
        mean.index_add_(0, owner[part].to(mean.device), (w * k).to(mean.device))
    factor, failed = torch.linalg.cholesky_ex(total)
    if int(failed):
        scale = total.diagonal().mean().clamp_min(torch.finfo(total.dtype).tiny)
        total.diagonal().add_(1e-6 * scale)
        factor = torch.linalg.cholesky(total)
    parts = torch.split(mean, _ROWS)
    return torch.cat([torch.cholesky_solve(k.to(place).T, factor).T.to(mean.device) for k in parts])


def ridge_rows(keys: Tensor, l2: float) -> Tensor:
    """(K K^T + l2 I)^-1 K = K (K^T K + l2 I)^-1 (t, d_in), float64, from K (t, d_in), by its shorter side."""
    k = keys.double()
    count, width = k.shape
    if count <= width:
        gram = k @ k.T + l2 * torch.eye(count, dtype=k.dtype, device=k.device)
        return torch.cholesky_solve(k, torch.linalg.cholesky(gram))
    gram = k.T @ k + l2 * torch.eye(width, dtype=k.dtype, device=k.device)
    return torch.cholesky_solve(k.T, torch.linalg.cholesky(gram)).T
