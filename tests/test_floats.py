"""Conversions without torch give torch's bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hubedit.floats import NAMES, all_finite, fits, narrowed, raw, widened
from hubedit.patch import tensor_sha256
from hubedit.patch.identity import array_sha256

TORCH = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64}
PATTERNS = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16)
bits = arrays(np.uint32, st.integers(1, 40))


def stored(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.contiguous().view(torch.uint8).numpy().data)


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
def test_every_16_bit_number_is_widened_and_comes_back(dtype: str) -> None:
    values = PATTERNS if dtype == "BF16" else PATTERNS.view(np.float16)
    wide = widened(values, dtype)
    theirs = torch.from_numpy(PATTERNS.view(np.int16)).view(TORCH[dtype]).float().numpy()
    finite = np.isfinite(theirs)
    assert np.array_equal(wide.view(np.uint32)[finite], theirs.view(np.uint32)[finite])
    assert np.array_equal(np.isnan(wide), np.isnan(theirs))
    back = narrowed(wide, dtype).view(np.uint16)
    number = ~np.isnan(wide)
    assert np.array_equal(back[number], PATTERNS[number])
    assert np.isnan(widened(narrowed(wide, dtype), dtype)[~number]).all()


@given(bits, st.sampled_from(["BF16", "F16"]))
def test_float32_is_rounded_as_torch_rounds_it(pattern: np.ndarray, dtype: str) -> None:
    values = pattern.view(np.float32)
    ours = narrowed(values, dtype)
    theirs = torch.from_numpy(values.copy()).to(TORCH[dtype])
    number = ~np.isnan(values)
    assert np.array_equal(
        ours.view(np.uint16)[number], theirs.view(torch.int16).numpy().view(np.uint16)[number]
    )
    assert np.isnan(widened(ours, dtype)[~number]).all()
    assert all_finite(ours, dtype) == bool(torch.isfinite(theirs).all())


def test_ties_go_to_even_and_subnormals_and_the_largest_are_right() -> None:
    cases = {
        0x3F808000: 0x3F80,  # half a unit above 1: down to even
        0x3F818000: 0x3F82,  # half a unit above an odd one: up to even
        0x3F808001: 0x3F81,
        0x00000001: 0x0000,  # the smallest subnormal of float32
        0x00008001: 0x0001,  # becomes the smallest of bfloat16
        0x80008001: 0x8001,
        0x7F7F7FFF: 0x7F7F,  # the largest that stays finite
        0x7F7F8000: 0x7F80,  # half a unit above: infinite
        0x7F800000: 0x7F80,
        0x7F800001: 0x7FC0,  # a NaN whose bits are all in the lower half stays one
        0xFFFFFFFF: 0xFFFF,
    }
    values = np.array(list(cases), np.uint32).view(np.float32)
    assert [hex(n) for n in narrowed(values, "BF16")] == [hex(n) for n in cases.values()]


@given(bits)
def test_hashes_and_exactness_agree_with_torch(pattern: np.ndarray) -> None:
    values = pattern.view(np.float32)
    tensor = torch.from_numpy(values.copy())
    for name, kind in NAMES.items():
        narrow = tensor.to(getattr(torch, name))
        assert fits(values, kind) == torch.equal(narrow.float(), tensor)
    assert array_sha256(values) == tensor_sha256(tensor)


@given(arrays(np.float64, st.integers(1, 20)), st.sampled_from(["BF16", "F16", "F32", "F64"]))
def test_float64_goes_the_way_of_torch(values: np.ndarray, dtype: str) -> None:
    number = values[~np.isnan(values)]
    assume(len(number))
    assert bytes(raw(narrowed(number, dtype))) == stored(torch.from_numpy(number.copy()).to(TORCH[dtype]))
