"""The sketch of a matrix seen in blocks: the leading directions, and what they leave out."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hubedit.linalg.sketch import Blocks, Sketch, sketch
from tests.linalg.strategies import SEEDS, normal


def blocks_of(matrix: Tensor, height: int) -> Blocks:
    def blocks() -> Iterable[Tensor]:
        return (matrix[at : at + height] for at in range(0, len(matrix), height))

    return blocks


def never(_: Sketch) -> bool:
    return False


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), SEEDS)
def test_a_small_matrix_is_decomposed_exactly(m: int, n: int, height: int, seed: int) -> None:
    matrix = normal(seed, m, n)
    found = sketch(blocks_of(matrix, height), (m, n), never)
    torch.testing.assert_close((found.left * found.values) @ found.right, matrix)
    assert found.complete and found.kept(min(m, n)) == pytest.approx(1)
    assert found.above(0) == int(torch.linalg.matrix_rank(matrix))


@pytest.mark.parametrize("shape", [(700, 900), (900, 700)])
@pytest.mark.parametrize("rank", [3, 60])
def test_a_large_matrix_of_low_rank_is_found_below_noise(shape: tuple[int, int], rank: int) -> None:
    clean = normal(0, shape[0], rank) @ normal(1, rank, shape[1])
    noise = 1e-3 * normal(2, *shape)
    matrix = (clean + noise).float()
    # as in the difference of rounded weights: the noise's top is what random matrices have
    top = 1e-3 * (shape[0] ** 0.5 + shape[1] ** 0.5)
    found = sketch(blocks_of(matrix, 64), shape, lambda s: s.above(top) < len(s.values))
    assert found.above(top) == rank
    exact = torch.linalg.svdvals(matrix.double())
    torch.testing.assert_close(found.values[:rank], exact[:rank], rtol=1e-5, atol=0)
    assert found.energy == pytest.approx(float((exact**2).sum()), rel=1e-6)
    cut = (found.left[:, :rank] * found.values[:rank]) @ found.right[:rank]
    lost = float((matrix.double() - cut).norm())
    assert lost == pytest.approx(float(exact[rank:].norm()), rel=1e-3)
    assert found.kept(rank) == pytest.approx(1 - float((exact[rank:] ** 2).sum()) / found.energy, abs=1e-6)
    eye = torch.eye(len(found.values), dtype=torch.float64)
    torch.testing.assert_close(found.left.T @ found.left, eye, rtol=0, atol=1e-6)


def test_the_widths_are_tried_until_they_are_enough() -> None:
    matrix = torch.randn(600, 520)
    assert len(sketch(blocks_of(matrix, 99), (600, 520), never, widths=(5, 9)).values) == 9
    assert len(sketch(blocks_of(matrix, 99), (600, 520), lambda _: True, widths=(5, 9)).values) == 5


def test_a_zero_matrix_has_no_rank() -> None:
    for shape in ((4, 5), (600, 520)):
        found = sketch(blocks_of(torch.zeros(shape), 50), shape, lambda _: True)
        assert found.above(0) == 0 and found.kept(1) == 1.0 and found.energy == 0


def test_the_rank_for_a_share_of_the_energy() -> None:
    found = sketch(blocks_of(torch.diag(torch.tensor([3.0, 2.0, 1.0])), 1), (3, 3), never)
    assert [found.rank_for(share) for share in (0.5, 0.64, 0.9, 0.93, 1.0)] == [1, 1, 2, 3, 3]
