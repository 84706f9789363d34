"""Moments in batches equal one pass, and a resumed sum equals an uninterrupted one."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hubedit.linalg import SecondMoment
from tests.linalg.strategies import SEEDS, normal

Batches = list[Tensor]


@st.composite
def batches(draw: st.DrawFn) -> Batches:
    """At least one row, in batches of which some are empty; any scale."""
    width, scale = draw(st.integers(1, 6)), 10.0 ** draw(st.integers(-3, 3))
    sizes = draw(st.lists(st.integers(0, 5), min_size=1, max_size=5).filter(any))
    rows = (normal(draw(SEEDS), sum(sizes), width) * scale).float()
    return list(torch.split(rows, sizes))


@given(batches(), st.randoms(use_true_random=False))
def test_batches_in_any_order_equal_one_pass(parts: Batches, rng: random.Random) -> None:
    x = torch.cat(parts).double()
    expected = x.T @ x / len(x)
    rng.shuffle(parts)
    total = SecondMoment(x.shape[1])
    for part in parts:
        total.update(part)
    found = total.finish()
    assert found.count == total.count == len(x)
    assert found.matrix.dtype == torch.float32
    scale = float(expected.abs().max())
    torch.testing.assert_close(found.matrix.double(), expected, atol=1e-5 * scale, rtol=1e-5)
    assert torch.equal(found.matrix, found.matrix.T)
    assert float(torch.linalg.eigvalsh(found.matrix.double()).min()) >= -1e-5 * scale


@given(batches(), st.integers(0, 5))
def test_a_resumed_sum_is_bit_for_bit_the_uninterrupted_one(parts: Batches, cut: int) -> None:
    width = parts[0].shape[1]
    straight, first = SecondMoment(width), SecondMoment(width)
    for part in parts:
        straight.update(part)
    for part in parts[:cut]:
        first.update(part)
    kept = first.state()[0].clone(), first.state()[1]
    second = SecondMoment(width)
    second.restore(*first.state())
    for part in parts[cut:]:
        second.update(part)
    assert second.count == straight.count
    assert torch.equal(second.finish().matrix, straight.finish().matrix)
    assert torch.equal(first.state()[0], kept[0]), "the sum continued from is not touched"


def test_rows_may_come_in_any_shape_and_type() -> None:
    x = torch.randn(2, 3, 4)
    flat, stacked, half = SecondMoment(4), SecondMoment(4), SecondMoment(4)
    flat.update(x.reshape(-1, 4))
    stacked.update(x)
    assert torch.equal(flat.finish().matrix, stacked.finish().matrix)
    half.update(x.bfloat16())
    expected = SecondMoment(4)
    expected.update(x.bfloat16().float())
    assert torch.equal(half.finish().matrix, expected.finish().matrix)


def test_no_gradient_is_kept() -> None:
    total = SecondMoment(3)
    total.update(torch.randn(2, 3, requires_grad=True))
    assert not total.finish().matrix.requires_grad


def test_half_precision_sums_do_not_saturate() -> None:
    """A bfloat16 sum of ones stops at 256."""
    total = SecondMoment(1)
    for _ in range(40):
        total.update(torch.ones(100, 1, dtype=torch.bfloat16))
    assert float(total.state()[0]) == 4000


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.gpu
@pytest.mark.parametrize(("home", "away"), [("cpu", "cuda"), ("cuda", "cpu")])
def test_the_sum_may_live_on_another_device(home: str, away: str) -> None:
    x = torch.randn(50, 8)
    total = SecondMoment(8, home)
    total.update(x.to(away))
    assert total.state()[0].device.type == home
    torch.testing.assert_close(total.finish().matrix, x.T @ x / 50)


def test_the_sum_takes_what_another_device_gives() -> None:
    """Without a GPU: the meta device holds no numbers, but mixing it with the CPU is an error too."""
    total = SecondMoment(2, "meta")
    total.update(torch.ones(3, 2))
    assert (total.state()[0].device.type, total.count) == ("meta", 3)


def test_nothing_seen_gives_nothing() -> None:
    with pytest.raises(ValueError, match="no rows"):
        SecondMoment(3).finish()
