"""Truncation: what is kept, in the change's own norm and on ordinary text, against dense matrices."""

from __future__ import annotations

import numpy as np
import pytest

from hubedit.floats import Array
from hubedit.patch import Patch
from hubedit.patch.owners import owners
from hubedit.patch.pair import Factors, Pair
from hubedit.patch.ranks import Kept, cut, rank_for
from tests.patch.parts import DOWN, OUT
from tests.patch.recorded import edited, recorded


def moment(width: int, seed: int = 0) -> Array:
    root = np.random.default_rng(seed).normal(size=(width, width)) * np.geomspace(1, 30, width)
    return root.T @ root / width


def power(change: Array, c: Array) -> float:
    return float(np.trace(change @ c @ change.T))


def test_the_shares_are_those_of_the_dense_matrices() -> None:
    patch = recorded((5, 4))
    pair, c = patch.pairs[DOWN], moment(24)
    whole, kept = pair.B @ pair.A, Kept.of(patch.pairs[DOWN], c)
    for rank in range(1, 6):
        small, energy = pair.truncate(rank)
        change = small.B @ small.A
        assert kept.change[rank - 1] == pytest.approx(energy, rel=1e-5)
        lost = power(whole - change, c) / power(whole, c)
        assert kept.text[rank - 1] == pytest.approx(1 - lost, abs=1e-5)
    assert kept.text[-1] == pytest.approx(1)


def wide(values: Array, width: int = 48, seed: int = 0) -> Patch:
    """A patch of one module with these singular values."""
    draw = np.random.default_rng(seed)
    left = np.linalg.qr(draw.normal(size=(width, len(values))))[0]
    right = np.linalg.qr(draw.normal(size=(width, len(values))))[0].T
    one = recorded((1, 0))
    return Patch(Factors({DOWN: Pair(left * values, right)}), one.record, one.base)


def test_auto_is_the_smallest_rank_that_keeps_nearly_all_and_readers_take() -> None:
    values = np.r_[np.ones(10), np.full(30, 0.01)]
    patch = wide(values)
    assert rank_for(patch, {}) == 16, "10 directions, and vLLM's next rank is 16"
    # where ordinary text uses just the small directions, they count too
    _, _, right = patch.pairs[DOWN].svd()
    text = right[10:].T @ right[10:] + 1e-9 * np.eye(48)
    assert rank_for(patch, {DOWN: text}) == 64
    small = cut(patch, 16, {DOWN: text})
    told = small.record["truncation"]
    assert (told["rank"], small.rank) == (16, 16)
    assert told["energy"][DOWN] > 0.999 and told["text"][DOWN] == pytest.approx(0.2, abs=0.01)


def test_no_rank_is_above_what_readers_take() -> None:
    assert rank_for(wide(np.ones(600), 700), {}) == 512


def test_a_truncated_patch_knows_no_owners() -> None:
    patch = edited([("a", "x"), ("b", "x")], 0)
    assert owners(patch) is not None
    small = cut(patch, 1, {OUT: moment(24)})
    assert owners(small) is None and set(small.record["truncation"]["text"]) == {OUT}
