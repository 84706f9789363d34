"""W + B A of one tensor, in blocks of rows: from the base's bytes to the bytes of the merged tensor."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from math import isfinite, sqrt
from pathlib import Path
from typing import Any

import numpy as np

from hubedit.checkpoint.place import writing
from hubedit.errors import CheckpointError
from hubedit.floats import STORED, Array, all_finite, narrowed, raw, widened
from hubedit.patch.pair import Pair
from hubedit.weights.blocks import blocks
from hubedit.weights.header import TensorEntry

FLOATS = tuple(STORED)
"""The dtypes that a change can be added to."""

ELEMENTS = 1 << 18
"""Of one block: what is computed of it stays in the processor's cache."""


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
    the modules' orientation, none to get the base back; `transposed`: it is stored (d_in, d_out);
    `keep`: a file and an offset where the base's bytes are put by the same read, when they are added to.
    """

    base: TensorEntry
    factors: tuple[Pair, ...]
    transposed: bool
    keep: tuple[Path, int] | None = None

    def write(self, dtype: str, write: Callable[[memoryview], None]) -> Realised:
        """Hands the new tensor's bytes to `write`, piece by piece. Raises CheckpointError, OSError.

        The sum is formed in float32 (float64 for a float64 base) and rounded once to `dtype`.
        """
        if not self.factors:
            return Realised(0.0, 1.0, 0.0, convert(self.base, dtype, write))
        digest = hashlib.sha256()
        left, right = self._product(np.float64 if self.base.dtype == "F64" else np.float32)
        intended = along = missed = 0.0
        row = 0
        # what overflows is reported below
        quiet = np.errstate(over="ignore", invalid="ignore")
        with quiet, writing(*self.keep) if self.keep else nullcontext() as keep:
            for piece in _rows(self.base):
                if keep:
                    keep(piece)
                weight = values_of(piece, self.base).reshape(-1, right.shape[1])
                change = left[row : row + len(weight)] @ right
                row += len(weight)
                new = narrowed(weight + change, dtype)
                data = raw(new)
                digest.update(data)
                write(data)
                real = np.subtract(widened(new, dtype), weight)
                intended += _sum(change, change)
                along += _sum(real, change)
                real -= change
                lost = _sum(real, real)
                missed += lost
                if not isfinite(lost) and not all_finite(new, dtype) and np.isfinite(weight).all():
                    raise CheckpointError(
                        f"the change of {self.base.name} does not fit into {dtype}: it becomes infinite",
                        "merge with --dtype bfloat16 or float32",
                    )
        if not intended:
            return Realised(0.0, 1.0, 0.0, digest.hexdigest())
        share = min(max(along / intended, 0.0), 1.0)
        return Realised(sqrt(intended), share**2, sqrt(missed / intended), digest.hexdigest())

    def _product(self, wide: type[np.floating[Any]]) -> tuple[Array, Array]:
        """Left (rows, r) and right (r, columns) factor of the stored tensor's change."""
        b = np.concatenate([pair.B for pair in self.factors], 1, dtype=wide)
        a = np.concatenate([pair.A for pair in self.factors], 0, dtype=wide)
        return (np.ascontiguousarray(a.T), np.ascontiguousarray(b.T)) if self.transposed else (b, a)


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
        new = narrowed(values, dtype)
        if not all_finite(new, dtype) and np.isfinite(values).all():
            raise CheckpointError(
                f"{entry.name} does not fit into {dtype}: it becomes infinite", "choose another --dtype"
            )
        digest.update(raw(new))
        write(raw(new))
    return digest.hexdigest()


def flat(entry: TensorEntry) -> Iterator[Array]:
    """All values in pieces, one-dimensional, float32 or for F64 float64. Raises CheckpointError."""
    for piece in blocks(entry, ELEMENTS * STORED[entry.dtype].itemsize):
        yield values_of(piece, entry)


def _rows(entry: TensorEntry) -> Iterator[memoryview]:
    """A matrix in blocks of whole rows; each is overwritten by the next."""
    rows, columns = entry.shape
    if not rows or not columns:
        return iter(())
    width = columns * STORED[entry.dtype].itemsize
    return blocks(entry, width * max(1, ELEMENTS // columns))


def values_of(piece: memoryview, entry: TensorEntry) -> Array:
    """Stored numbers as float32, F64 as float64, one-dimensional."""
    return widened(np.frombuffer(piece, STORED[entry.dtype]), entry.dtype)


def _sum(one: Array, other: Array) -> float:
    """Sum of products; a block is small enough for its own type."""
    return float(np.dot(one.reshape(-1), other.reshape(-1)))
