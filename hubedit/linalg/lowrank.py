"""A low-rank matrix kept as its two factors: what a patch is made of."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

_ROWS = 512


@dataclass(frozen=True)
class LowRank:
    """The matrix `B @ A` of shape (d_out, d_in), never formed.

    `B`: (d_out, r), `A`: (r, d_in), same dtype and device. Acts on row vectors as `x @ (B A)^T`.
    """

    B: Tensor
    A: Tensor

    def __post_init__(self) -> None:
        if self.B.ndim != 2 or self.A.ndim != 2 or self.B.shape[1] != self.A.shape[0]:
            raise ValueError(f"factors do not chain: B {tuple(self.B.shape)}, A {tuple(self.A.shape)}")

    @property
    def rank(self) -> int:
        """Number of columns of B (an upper bound of the matrix rank)."""
        return self.B.shape[1]

    @property
    def shape(self) -> tuple[int, int]:
        """(d_out, d_in) of the full matrix."""
        return self.B.shape[0], self.A.shape[1]

    def __add__(self, other: LowRank) -> LowRank:
        """Exact sum by concatenation of factors; ranks add."""
        if self.shape != other.shape:
            raise ValueError(f"cannot add {self.shape} and {other.shape}")
        return LowRank(torch.cat([self.B, other.B], 1), torch.cat([self.A, other.A], 0))

    def __mul__(self, scale: float) -> LowRank:
        return LowRank(self.B * scale, self.A)

    __rmul__ = __mul__

    def apply(self, x: Tensor) -> Tensor:
        """`x @ (B A)^T` for x (..., d_in) -> (..., d_out)."""
        return (x @ self.A.T) @ self.B.T

    def dense(self) -> Tensor:
        """The full (d_out, d_in) matrix. For tests and merging only."""
        return self.B @ self.A

    def norm(self) -> float:
        """Frobenius norm: |BA|^2 = sum((B^T B) * (A A^T)) of the factors, which takes r^2 (d_out + d_in)
        products; where the r d_out d_in of the matrix itself are fewer, it is formed in blocks of rows."""
        if self.rank * sum(self.shape) > self.shape[0] * self.shape[1]:
            return sqrt(sum(float(rows.square().sum()) for rows in self.rows()))
        gram = (self.B.double().T @ self.B.double()) * (self.A.double() @ self.A.double().T)
        return float(gram.sum().clamp_min(0).sqrt())

    def rows(self) -> Iterator[Tensor]:
        """The matrix in blocks of rows (up to 512, d_in), float64."""
        right = self.A.double()
        for at in range(0, self.shape[0], _ROWS):
            yield self.B[at : at + _ROWS].double() @ right

    def digest(self) -> str:
        """sha256 (16 hexadecimal digits) of both factors in float32: what tells two of them apart."""
        total = hashlib.sha256()
        for part in (self.B, self.A):
            total.update(part.detach().float().cpu().contiguous().numpy().tobytes())
        return total.hexdigest()[:16]

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> LowRank:
        """The same matrix on another device or in another dtype."""
        return LowRank(self.B.to(device=device, dtype=dtype), self.A.to(device=device, dtype=dtype))

    def pad(self, rank: int) -> LowRank:
        """The same matrix with zero columns and rows added up to `rank`."""
        extra = rank - self.rank
        if extra < 0:
            raise ValueError(f"cannot pad rank {self.rank} down to {rank}")
        return LowRank(
            torch.nn.functional.pad(self.B, (0, extra)), torch.nn.functional.pad(self.A, (0, 0, 0, extra))
        )

    def singular_values(self) -> Tensor:
        """Singular values of B A (min(r, d_out, d_in),), float64, descending."""
        return self._core()[1]

    def truncate(self, rank: int) -> tuple[LowRank, float]:
        """The best approximation of rank `rank` in Frobenius norm (Eckart-Young) and the energy it keeps.

        Energy is |truncated|^2 / |self|^2, 1.0 when nothing is lost.
        """
        left, values, right = self._core()
        total = float((values**2).sum())
        keep = min(rank, values.numel())
        energy = float((values[:keep] ** 2).sum()) / total if total > 0 else 1.0
        root = values[:keep].sqrt()
        cut = LowRank(left[:, :keep] * root, root[:, None] * right[:keep])
        return cut.to(device=self.B.device, dtype=self.B.dtype), energy

    def compress(self) -> LowRank:
        """The same matrix, to rounding, with a rank of at most min(d_out, d_in).

        Takes r d_out d_in products and a QR of the matrix: linear in the rank, which an SVD of the factors is
        not.
        """
        if self.rank <= min(self.shape):
            return self
        dense = torch.cat(list(self.rows()))
        if dense.shape[0] > dense.shape[1]:
            q, r = torch.linalg.qr(dense)
            return LowRank(q, r).to(self.B.device, self.B.dtype)
        q, r = torch.linalg.qr(dense.T)
        return LowRank(r.T.contiguous(), q.T.contiguous()).to(self.B.device, self.B.dtype)

    def _core(self) -> tuple[Tensor, Tensor, Tensor]:
        """Thin SVD of B A by QR of both factors and an SVD of the small core, in float64."""
        q_left, r_left = torch.linalg.qr(self.B.double())
        q_right, r_right = torch.linalg.qr(self.A.double().T)
        u, s, vh = torch.linalg.svd(r_left @ r_right.T, full_matrices=False)
        return q_left @ u, s, vh @ q_right.T
