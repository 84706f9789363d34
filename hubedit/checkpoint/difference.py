"""The difference of two stored tensors, in blocks of rows: how large it is, and of what rank.

A checkpoint holds rounded numbers, so the difference of an edited weight is the edit plus rounding noise of
full rank. The noise is known in size: an entry is off by at most half a unit in its last place, evenly
spread. Its largest singular value is about the largest row's expected norm plus the largest column's
(Bandeira and van Handel 2016), and only directions above that are counted as the edit's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from math import prod, sqrt

import torch
from torch import Tensor

from hubedit.checkpoint.tensors import TORCH
from hubedit.errors import CheckpointError
from hubedit.linalg.sketch import Blocks
from hubedit.weights.blocks import blocks
from hubedit.weights.header import TensorEntry

_ELEMENTS = 1 << 22
_PIECE = 1 << 22
_HELD = 1 << 29


@dataclass(frozen=True)
class Size:
    """`norm`: |edited - base| (Frobenius); `base_norm`: |base|; `largest`: of one entry; `noise`: the
    largest singular value that rounding alone would give."""

    norm: float
    base_norm: float
    largest: float
    noise: float

    @property
    def relative(self) -> float | None:
        """|D| / |W|; None where W is zero."""
        return self.norm / self.base_norm if self.base_norm > 0 else None


def same_bytes(one: TensorEntry, two: TensorEntry) -> bool:
    """Whether two tensors are equal bit for bit; a shared file is not read. Raises CheckpointError."""
    if (one.dtype, one.shape) != (two.dtype, two.shape):
        return False
    if one.start == two.start and _same_file(one, two):
        return True
    return all(
        torch.equal(torch.frombuffer(a, dtype=torch.uint8), torch.frombuffer(b, dtype=torch.uint8))
        for a, b in zip(blocks(one, _PIECE), blocks(two, _PIECE), strict=True)
    )


def size(base: TensorEntry, edited: TensorEntry) -> Size:
    """Measures a difference in one pass. Raises CheckpointError, also for values that are not finite."""
    _, columns = matrix_shape(base)
    total = own = largest = row_noise = 0.0
    column_noise = torch.zeros(columns, dtype=torch.float64)
    for old, new in _pairs(base, edited):
        squares = _powers(new, edited.dtype).square_()
        row_noise = max(row_noise, float(squares.sum(1).max()))
        column_noise += squares.sum(0)
        delta = new.sub_(old)
        total += _energy(delta)
        own += _energy(old)
        low, high = delta.aminmax()
        largest = max(largest, -float(low), float(high))
    if not total < float("inf"):
        raise CheckpointError(f"{edited.name} of {edited.file} holds NaN or infinity")
    kind = TORCH[edited.dtype]
    unit = torch.finfo(kind).eps / sqrt(12) if kind.is_floating_point else 0.0
    stored = unit * (sqrt(row_noise) + sqrt(float(column_noise.max()) if columns else 0.0))
    # and the edit was computed in floating point itself, with an error relative to its entries
    computed = 2 * torch.finfo(_wide(base, edited)).eps * sqrt(total)
    return Size(sqrt(total), sqrt(own), largest, stored + computed)


def difference(base: TensorEntry, edited: TensorEntry) -> Blocks:
    """edited - base as blocks of rows, float32 (float64 where one is stored so).

    Held in memory up to 512 MB; a larger difference is read anew from the disk each time.
    """
    if prod(base.shape) * _wide(base, edited).itemsize > _HELD:
        return partial(_stream, base, edited)
    held = list(_stream(base, edited))
    return lambda: held


def matrix_shape(entry: TensorEntry) -> tuple[int, int]:
    """(rows, columns) of a tensor seen as a matrix: its last dimension are the columns."""
    columns = entry.shape[-1] if entry.shape else 1
    return prod(entry.shape[:-1]), columns


def readable(entry: TensorEntry) -> bool:
    """Whether the tensor holds real numbers that torch can read."""
    return entry.dtype in TORCH and entry.dtype != "C64"


def _pairs(one: TensorEntry, two: TensorEntry) -> Iterator[tuple[Tensor, Tensor]]:
    """Blocks of rows of both, in the wider of float32 and what is stored."""
    count, columns = matrix_shape(one)
    if not count or not columns:
        return
    height = max(1, _ELEMENTS // columns)
    sizes = [height * columns * TORCH[e.dtype].itemsize for e in (one, two)]
    wide = _wide(one, two)
    for a, b in zip(blocks(one, sizes[0]), blocks(two, sizes[1]), strict=True):
        old = torch.frombuffer(a, dtype=TORCH[one.dtype])
        new = torch.frombuffer(b, dtype=TORCH[two.dtype])
        # copies, because the buffers are filled anew and the caller may change what it gets
        yield old.to(wide, copy=True).view(-1, columns), new.to(wide, copy=True).view(-1, columns)


def _wide(one: TensorEntry, two: TensorEntry) -> torch.dtype:
    """A type that holds the values of both."""
    long = {"F64", "I32", "U32", "I64", "U64"}
    return torch.float64 if long & {one.dtype, two.dtype} else torch.float32


def _powers(values: Tensor, dtype: str) -> Tensor:
    """The power of two at or below each value's size: eps of the stored dtype times this is one unit in
    its last place. `values`: float32 or float64. 0 for integers."""
    kind = TORCH[dtype]
    if not kind.is_floating_point:
        return torch.zeros_like(values)
    bits, exponent = (
        (torch.int32, 0x7F800000) if values.dtype == torch.float32 else (torch.int64, 0x7FF0000000000000)
    )
    powers = (values.view(bits) & exponent).view(values.dtype)
    return powers.clamp_min_(torch.finfo(kind).smallest_normal)


def _energy(values: Tensor) -> float:
    return float(torch.linalg.vector_norm(values, dtype=torch.float64).square())


def _stream(base: TensorEntry, edited: TensorEntry) -> Iterator[Tensor]:
    for old, new in _pairs(base, edited):
        yield new.sub_(old)


def _same_file(one: TensorEntry, two: TensorEntry) -> bool:
    try:
        return one.file.samefile(two.file)
    except OSError:
        return False
