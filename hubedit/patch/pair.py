"""The factors of one module as numpy arrays: what a patch is made of, for work that needs no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hubedit.floats import Array

if TYPE_CHECKING:
    from torch import Tensor

    from hubedit.linalg import LowRank


_ROWS = 512


@dataclass(frozen=True, eq=False)
class Pair:
    """The matrix `B @ A` of shape (d_out, d_in). `B`: (d_out, r), `A`: (r, d_in), both float32 and
    contiguous. Shares its memory with the `LowRank` that `Factors` makes of it."""

    B: Array
    A: Array

    def __post_init__(self) -> None:
        if self.B.ndim != 2 or self.A.ndim != 2 or self.B.shape[1] != self.A.shape[0]:
            raise ValueError(f"factors do not chain: B {self.B.shape}, A {self.A.shape}")
        for name in ("B", "A"):
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), np.float32))

    @property
    def rank(self) -> int:
        """Number of columns of B (an upper bound of the matrix rank)."""
        return int(self.B.shape[1])

    @property
    def shape(self) -> tuple[int, int]:
        """(d_out, d_in) of the full matrix."""
        return self.B.shape[0], self.A.shape[1]

    @property
    def finite(self) -> bool:
        """Whether it holds no NaN and no infinity."""
        return bool(np.isfinite(self.A).all() and np.isfinite(self.B).all())

    def __add__(self, other: Pair) -> Pair:
        """Exact sum by concatenation of factors; ranks add."""
        if self.shape != other.shape:
            raise ValueError(f"cannot add {self.shape} and {other.shape}")
        return Pair(np.concatenate([self.B, other.B], 1), np.concatenate([self.A, other.A], 0))

    def norm(self) -> float:
        """Frobenius norm: |BA|^2 = sum((B^T B) * (A A^T)), or in blocks of rows of BA where that takes fewer
        products."""
        b, a = self.B.astype(np.float64), self.A.astype(np.float64)
        if self.rank * sum(self.shape) > self.shape[0] * self.shape[1]:
            parts = (b[at : at + _ROWS] @ a for at in range(0, len(b), _ROWS))
            return float(np.sqrt(sum(float(np.square(part).sum()) for part in parts)))
        return float(np.sqrt(max(float(((b.T @ b) * (a @ a.T)).sum()), 0.0)))

    def pad(self, rank: int) -> Pair:
        """The same matrix with zero columns and rows added up to `rank`."""
        extra = rank - self.rank
        if extra < 0:
            raise ValueError(f"cannot pad rank {self.rank} down to {rank}")
        return Pair(np.pad(self.B, ((0, 0), (0, extra))), np.pad(self.A, ((0, extra), (0, 0))))

    def singular_values(self) -> Array:
        """Singular values of B A (min(r, d_out, d_in),), float64, descending."""
        return self.svd()[1]

    def truncate(self, rank: int) -> tuple[Pair, float]:
        """The best approximation of rank `rank` in Frobenius norm (Eckart-Young) and the energy it keeps.

        Energy is |truncated|^2 / |self|^2, 1.0 when nothing is lost.
        """
        left, values, right = self.svd()
        total = float((values**2).sum())
        keep = min(rank, values.size)
        energy = float((values[:keep] ** 2).sum()) / total if total > 0 else 1.0
        root = np.sqrt(values[:keep])
        return Pair(left[:, :keep] * root, root[:, None] * right[:keep]), energy

    def svd(self) -> tuple[Array, Array, Array]:
        """Thin SVD of B A by QR of both factors and an SVD of the small core, in float64."""
        q_left, r_left = np.linalg.qr(self.B.astype(np.float64))
        q_right, r_right = np.linalg.qr(self.A.astype(np.float64).T)
        u, s, vh = np.linalg.svd(r_left @ r_right.T, full_matrices=False)
        return q_left @ u, s, vh @ q_right.T


class Factors(Mapping[str, "LowRank"]):
    """Module -> factors for torch, made when they are asked for, so that who does not ask needs no torch.

    `pairs`: the same for numpy, in the same order.
    """

    def __init__(self, pairs: Mapping[str, Pair]) -> None:
        self.pairs = dict(pairs)

    @classmethod
    def of(cls, factors: Mapping[str, LowRank]) -> Factors:
        """Any mapping; values go to the CPU and to float32."""
        if isinstance(factors, cls):
            return factors
        return cls({module: Pair(_array(f.B), _array(f.A)) for module, f in factors.items()})

    def __getitem__(self, module: str) -> LowRank:
        import torch

        from hubedit.linalg import LowRank

        pair = self.pairs[module]
        return LowRank(torch.from_numpy(pair.B), torch.from_numpy(pair.A))

    def __iter__(self) -> Iterator[str]:
        return iter(self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)


def _array(tensor: Tensor) -> Array:
    found: Array = tensor.detach().cpu().float().numpy()
    return found
