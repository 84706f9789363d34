"""The closed-form solve of one site, as low-rank factors.

For keys K (N, d_in), residuals R (N, d_out) and the second moment C (d_in, d_in) of what must be
preserved, the ridge solution of MEMIT (Meng et al. 2023, eq. 14) is

    dW = R^T K (lam C + K^T K)^-1  =  B A,   B = R^T,   A = (lam I + S)^-1 K C^-1,   S = K C^-1 K^T

(the second form is Woodbury's identity: one Cholesky factor of C a site, then only N x N work).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hubedit.linalg.lowrank import LowRank


@dataclass(frozen=True)
class Preserved:
    """What one site must preserve: the Cholesky factor of its second moment. float64.

    `factor`: (d_in, d_in) lower triangular, L L^T = C + ridge mean(diag C) I. With a `basis` U (d_in, m),
    orthonormal columns, updates act on span(U) only (dW = dW U U^T), and `factor` (m, m) is that of U^T C U.
    """

    factor: Tensor
    basis: Tensor | None = None

    @classmethod
    def of(
        cls,
        moment: Tensor,
        ridge: float = 1e-4,
        device: torch.device | str | None = None,
        basis: Tensor | None = None,
    ) -> Preserved:
        """From the moment C (d_in, d_in), positive semi-definite.

        `ridge` x mean(diag C) is added to C's diagonal: a sample moment says nothing about directions
        that the corpus did not visit, and without it the solve would write exactly there.
        Raises torch.linalg.LinAlgError when C is not positive semi-definite.
        """
        c = moment.to(device=device, dtype=torch.float64, copy=True)
        c = (c + c.T).div_(2)
        scale = float(c.diagonal().mean())
        c.diagonal().add_(ridge * scale if scale > 0 else 1.0)
        if basis is not None:
            basis = basis.to(c)
            c = basis.T @ c @ basis
        return cls(torch.linalg.cholesky(c), basis)

    def to(self, device: torch.device) -> Preserved:
        """The same on a device."""
        return Preserved(self.factor.to(device), None if self.basis is None else self.basis.to(device))


@dataclass(frozen=True)
class KeySpace:
    """The keys of one site, whitened by what must be preserved. float64.

    `values`: (N,) eigenvalues of S = K C^-1 K^T, clamped at 0; `basis`: (N, N) its eigenvectors in
    columns; `dual`: (N, d_in) = K C^-1, with a basis K U (U^T C U)^-1 U^T.
    """

    values: Tensor
    basis: Tensor
    dual: Tensor

    @classmethod
    def of(cls, keys: Tensor, preserved: Preserved) -> KeySpace:
        """From keys (N, d_in) and what must be preserved."""
        factor, allowed = preserved.factor, preserved.basis
        keys = keys.to(factor)
        if allowed is not None:
            keys = keys @ allowed
        half = torch.linalg.solve_triangular(factor, keys.T, upper=False)
        values, basis = torch.linalg.eigh(half.T @ half)
        dual = torch.linalg.solve_triangular(factor.T, half, upper=True).T
        if allowed is not None:
            dual = dual @ allowed.T
        return cls(values.clamp_min(0), basis, dual)

    def solve(self, residuals: Tensor, lam: float) -> LowRank:
        """dW = R^T K (lam C + K^T K)^-1 as factors B = R^T (d_out, N), A (N, d_in). float64."""
        if lam <= 0:
            raise ValueError(f"lambda must be positive, not {lam}")
        inner = (self.basis / (lam + self.values)) @ self.basis.T
        return LowRank(residuals.double().T.contiguous(), inner @ self.dual)

    def exact(self, residuals: Tensor) -> LowRank:
        """dW = R^T (K C^-1 K^T)^+ K C^-1: dW K^T = R^T with the least tr(dW C dW^T) (EMMET).

        The limit of `solve` as lambda falls to 0. Where keys depend on each other, their residuals are met
        in the sense of least squares. float64.
        """
        # what eigh leaves of a zero eigenvalue is of the order of the largest one's rounding
        floor = float(self.values.max()) * len(self.values) * 1e-13 if len(self.values) else 0.0
        inverse = torch.where(self.values > floor, 1 / self.values.clamp_min(1e-300), 0.0)
        inner = (self.basis * inverse) @ self.basis.T
        return LowRank(residuals.double().T.contiguous(), inner @ self.dual)


def output_power(weight: Tensor, moment: Tensor) -> float:
    """tr(W C W^T): the mean squared output of a site; the unit that drift is relative to.

    weight (d_out, d_in), moment (d_in, d_in).
    """
    w = weight.double()
    return float(((w @ moment.to(w)) * w).sum())


def output_drift(factor: LowRank, moment: Tensor) -> float:
    """tr(dW C dW^T): how much an update dW (d_out, d_in) changes the site's output on inputs of moment C.

    From the factors it takes r^2 (d_out + d_in) products beside those with C; where their rank is above
    d_out, dW itself takes fewer, and is formed in blocks of rows.
    """
    if factor.rank > factor.shape[0]:
        wide = moment.to(factor.A.device, torch.float64)
        return max(0.0, sum(float(((rows @ wide) * rows).sum()) for rows in factor.rows()))
    a, b = factor.A.double(), factor.B.double()
    inner = a @ moment.to(a) @ a.T
    return float(((b.T @ b) * inner).sum().clamp_min(0))
