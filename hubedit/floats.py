"""The floating-point types of safetensors as numpy arrays, without torch.

numpy has no bfloat16: its 16 bits are the upper half of a float32, so they are widened by a shift, and
narrowed by adding half a unit in the last place and shifting back (round to nearest, ties to even, as
IEEE 754 and torch do it).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

STORED: Mapping[str, np.dtype[Any]] = MappingProxyType(
    {"F64": np.dtype("<f8"), "F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}
)
"""The numpy type that holds a dtype's bytes; for BF16 these are bits, not values."""

NAMES: Mapping[str, str] = MappingProxyType({"bfloat16": "BF16", "float16": "F16", "float32": "F32"})
"""torch's names of what a model may be loaded in, narrowest first -> safetensors' names."""

_NAN, _EXPONENT = np.uint32(0x0040), np.uint16(0x7F80)


def widened(stored: Array, dtype: str, out: Array | None = None) -> Array:
    """Stored numbers as float32, F64 as float64. `out`: an array of that type and shape to fill."""
    if dtype == "BF16":
        bits = np.empty(stored.shape, np.uint32) if out is None else out.view(np.uint32)
        np.left_shift(stored, 16, out=bits, dtype=np.uint32)
        return bits.view(np.float32)
    if out is None:
        return stored.astype(np.float64 if dtype == "F64" else np.float32)
    out[...] = stored
    return out


def narrowed(values: Array, dtype: str) -> Array:
    """float32 or float64 as they are stored in `dtype`, rounded to nearest; too large ones are infinite.

    A float64 becomes a 16-bit number by way of float32, as torch does it.
    """
    if dtype == "F64":
        return values.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        single = np.ascontiguousarray(values, np.float32)
        if dtype == "F32":
            return single
        if dtype == "F16":
            return single.astype(np.float16)
        finite = isfinite(float(single.sum()))  # a sum, in which a NaN would stay, costs least
    bits = single.view(np.uint32)
    rounded = bits >> 16
    rounded &= 1
    rounded += 0x7FFF
    rounded += bits  # of finite numbers and infinities this stays below 2^32
    rounded >>= 16
    if not finite:
        nan = np.isnan(single)
        rounded[nan] = (bits[nan] >> 16) | _NAN  # rounding could carry a NaN over into a zero
    return rounded.astype(np.uint16)


def all_finite(stored: Array, dtype: str) -> bool:
    """Whether there is no NaN or infinity among stored numbers."""
    if dtype == "BF16":
        return not stored.size or bool(np.bitwise_and(stored, _EXPONENT).max() < _EXPONENT)
    return bool(np.isfinite(stored).all())


def fits(values: Array, dtype: str) -> bool:
    """Whether a type holds float32 or float64 numbers exactly; of a NaN none is said to."""
    with np.errstate(over="ignore", invalid="ignore"):
        back = widened(narrowed(values, dtype), dtype)
    return bool(np.array_equal(back.astype(values.dtype, copy=False), values))


def raw(stored: Array) -> memoryview:
    """A contiguous array's bytes, shared."""
    return stored.reshape(-1).view(np.uint8).data
