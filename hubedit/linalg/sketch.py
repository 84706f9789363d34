"""The leading singular values and vectors of a matrix that is only ever seen in blocks of rows.

Randomised range finder with power iterations (Halko, Martinsson and Tropp 2011, algorithms 4.4 and 5.1):
a few passes over the rows, memory for a few tall matrices of `width` columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Blocks = Callable[[], Iterable[Tensor]]
"""Each call gives the matrix's rows anew, from the first, as blocks (b, n) of float32 or float64."""

EXACT = 512
"""A matrix whose shorter side is at most this gets an exact decomposition."""

WIDTHS = (32, 128, 512)
"""How many directions of a larger matrix are looked for, until they are enough."""

_EXTRA = 8
# float32 products leave this much of the largest singular value as noise
_FLOOR = 1e-5


@dataclass(frozen=True)
class Sketch:
    """`left` (m, k) and `right` (k, n) with orthonormal columns and rows, `values` (k,) descending, float64.

    `energy`: |matrix|^2, also of what the k directions leave out. `complete`: they leave nothing out.
    """

    left: Tensor
    values: Tensor
    right: Tensor
    energy: float
    complete: bool

    def kept(self, rank: int) -> float:
        """Share 0..1 of the energy in the first `rank` directions; 1.0 for a zero matrix."""
        if self.energy <= 0:
            return 1.0
        return min(1.0, float(self.values[:rank].square().sum()) / self.energy)

    def rank_for(self, share: float) -> int:
        """The smallest rank that keeps `share` of the energy; all k where none of them does."""
        missing = self.energy - self.values.square().cumsum(0)
        return min(len(self.values), int((missing > (1 - share) * self.energy).sum()) + 1)

    def above(self, tolerance: float) -> int:
        """Singular values above a tolerance, and above what the arithmetic itself adds."""
        if not len(self.values):
            return 0
        floor = 1e-12 if self.values.dtype == torch.float64 and self.complete else _FLOOR
        return int((self.values > max(tolerance, floor * float(self.values[0]))).sum())


def sketch(
    blocks: Blocks,
    shape: tuple[int, int],
    enough: Callable[[Sketch], bool],
    *,
    widths: Sequence[int] = WIDTHS,
    iterations: int = 2,
    seed: int = 0,
) -> Sketch:
    """Leading directions of a matrix (m, n): as many as the first of `widths` that is `enough`, or the last.

    All directions where the shorter side is at most `EXACT`, whatever the widths.
    """
    m, n = shape
    if min(m, n) <= EXACT:
        return _exact(blocks, shape)
    found = _sketch(blocks, shape, widths[0], iterations, seed)
    for width in widths[1:]:
        if enough(found):
            break
        found = _sketch(blocks, shape, width, iterations, seed)
    return found


def _exact(blocks: Blocks, shape: tuple[int, int]) -> Sketch:
    m, n = shape
    # float64 only of what is short on one side, so at most EXACT times the long side
    whole = torch.empty(m, n, dtype=torch.float64)
    at = 0
    for block in blocks():
        whole[at : at + len(block)] = block
        at += len(block)
    left, values, right = torch.linalg.svd(whole, full_matrices=False)
    return Sketch(left, values, right, float(values.square().sum()), True)


def _sketch(blocks: Blocks, shape: tuple[int, int], count: int, iterations: int, seed: int) -> Sketch:
    m, n = shape
    width = min(count + _EXTRA, m, n)
    probe = torch.randn(n, width, generator=torch.Generator().manual_seed(seed))
    for step in range(iterations + 1):
        basis = torch.linalg.qr(_times(blocks, probe, m).double())[0]
        back = _transposed_times(blocks, basis.float(), n)
        if step < iterations:
            probe = torch.linalg.qr(back.double())[0].float()
    # basis^T D is (width, n); its own SVD is that of D on the basis
    rotation, values, right = torch.linalg.svd(back.T.double(), full_matrices=False)
    left = basis @ rotation[:, :count]
    return Sketch(left, values[:count], right[:count], sum(map(_energy, blocks())), False)


def _times(blocks: Blocks, right: Tensor, rows: int) -> Tensor:
    """D @ right, (m, k)."""
    product = torch.empty(rows, right.shape[1])
    at = 0
    for block in blocks():
        product[at : at + len(block)] = block.float() @ right
        at += len(block)
    return product


def _transposed_times(blocks: Blocks, left: Tensor, columns: int) -> Tensor:
    """D^T @ left, (n, k)."""
    product = torch.zeros(columns, left.shape[1])
    at = 0
    for block in blocks():
        product.addmm_(block.float().T, left[at : at + len(block)])
        at += len(block)
    return product


def _energy(block: Tensor) -> float:
    return float(torch.linalg.vector_norm(block, dtype=torch.float64).square())
