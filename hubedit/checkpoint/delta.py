"""W + B A of one tensor, in blocks of rows: from the base's bytes to the bytes of the merged tensor."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite, sqrt

import torch
from torch import Tensor

from hubedit.checkpoint.header import TensorEntry
from hubedit.checkpoint.read import TORCH, blocks
from hubedit.errors import CheckpointError
from hubedit.linalg import LowRank

FLOATS = ("F64", "F32", "F16", "BF16")
"""The dtypes that a change can be added to."""

_ELEMENTS = 1 << 19  # of one block; what is in memory at once is a few times this


@dataclass(frozen=True)
class Realised:
    """What became of the intended change D once W + D was rounded: R = round(W + D) - W.

    `norm`: |D| (Frobenius); `kept`: the energy of R along D, (<R, D> / |D|^2)^2, at most 1; 0 where the
    two point apart. `error`: |R - D| / |D|, which also counts the rounding noise in all other
    directions. `sha256`: of the written bytes.
    """

    norm: float
    kept: float
    error: float
    sha256: str


@dataclass(frozen=True)
class Change:
    """`base`: where the base's bytes of a tensor (rows, columns) lie; `factors`: added in this order, in
    the modules' orientation, none to get the base back; `transposed`: it is stored (d_in, d_out).
    """

    base: TensorEntry
    factors: tuple[LowRank, ...]
    transposed: bool

    def write(self, dtype: str, write: Callable[[memoryview], None]) -> Realised:
        """Hands the new tensor's bytes to `write`, piece by piece. Raises CheckpointError.

        The sum is formed in float32 (float64 for a float64 base) and rounded once to `dtype`.
        """
        if not self.factors:
            return Realised(0.0, 1.0, 0.0, convert(self.base, dtype, write))
        digest = hashlib.sha256()
        wide = torch.float64 if self.base.dtype == "F64" else torch.float32
        left, right = self._product(wide)
        intended = along = missed = 0.0
        row = 0
        for weight in _rows(self.base):
            weight = weight.to(wide)
            change = left[row : row + len(weight)] @ right
            row += len(weight)
            new = (weight + change).to(TORCH[dtype])
            if not all_finite(new) and all_finite(weight):
                raise CheckpointError(
                    f"the change of {self.base.name} does not fit into {dtype}: it becomes infinite",
                    "merge with --dtype bfloat16 or float32",
                )
            data = raw(new)
            digest.update(data)
            write(data)
            real = new.to(wide).sub_(weight)
            intended += _sum(change, change)
            along += _sum(real, change)
            missed += _sum(real.sub_(change), real)
        if not intended:
            return Realised(0.0, 1.0, 0.0, digest.hexdigest())
        share = min(max(along / intended, 0.0), 1.0)
        return Realised(sqrt(intended), share**2, sqrt(missed / intended), digest.hexdigest())

    def _product(self, wide: torch.dtype) -> tuple[Tensor, Tensor]:
        """Left (rows, r) and right (r, columns) factor of the stored tensor's change."""
        b = torch.cat([factor.B.to(wide) for factor in self.factors], 1)
        a = torch.cat([factor.A.to(wide) for factor in self.factors], 0)
        return (a.T.contiguous(), b.T.contiguous()) if self.transposed else (b, a)


def convert(entry: TensorEntry, dtype: str, write: Callable[[memoryview], None]) -> str:
    """Hands a tensor's bytes in another floating dtype to `write`; their sha256. Raises CheckpointError.

    In its own dtype, whichever that is, the bytes stay as they are.
    """
    digest = hashlib.sha256()
    if dtype == entry.dtype:
        for piece in blocks(entry):
            digest.update(piece)
            write(piece)
        return digest.hexdigest()
    for values in flat(entry):
        new = values.to(TORCH[dtype])
        if not all_finite(new) and all_finite(values):
            raise CheckpointError(
                f"{entry.name} does not fit into {dtype}: it becomes infinite", "choose another --dtype"
            )
        digest.update(raw(new))
        write(raw(new))
    return digest.hexdigest()


def raw(values: Tensor) -> memoryview:
    """A contiguous tensor's bytes, shared."""
    return values.reshape(-1).view(torch.uint8).numpy().data


def _rows(entry: TensorEntry) -> Iterator[Tensor]:
    """A matrix in blocks of whole rows; each is overwritten by the next."""
    rows, columns = entry.shape
    if not rows or not columns:
        return
    width = columns * TORCH[entry.dtype].itemsize
    for piece in blocks(entry, width * max(1, _ELEMENTS // columns)):
        yield torch.frombuffer(piece, dtype=TORCH[entry.dtype]).view(-1, columns)


def flat(entry: TensorEntry) -> Iterator[Tensor]:
    """All values in pieces, one-dimensional; each is overwritten by the next. Raises CheckpointError."""
    for piece in blocks(entry, _ELEMENTS * TORCH[entry.dtype].itemsize):
        yield torch.frombuffer(piece, dtype=TORCH[entry.dtype])


@contextmanager
def calm() -> Iterator[None]:
    """Leaves torch one core less: another thread copies meanwhile, and small blocks gain little from many."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, min(before, (os.cpu_count() or 2) - 1)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def all_finite(values: Tensor) -> bool:
    """Whether there is no NaN or infinity. A sum, in which those would stay, is several times as fast."""
    wide = torch.float64 if values.dtype == torch.float64 else torch.float32
    return isfinite(float(values.sum(dtype=wide))) or bool(torch.isfinite(values).all())


def _sum(one: Tensor, other: Tensor) -> float:
    """Sum of products; a block is small enough for its own type."""
    return float(torch.dot(one.reshape(-1), other.reshape(-1)))
