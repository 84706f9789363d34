"""A low-rank matrix behaves as the full matrix that it never forms."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hubedit.linalg import LowRank
from tests.linalg.strategies import SEEDS, SIZES, low_ranks, normal

close = torch.testing.assert_close


@st.composite
def pairs(draw: st.DrawFn) -> tuple[LowRank, LowRank]:
    shape = draw(SIZES), draw(SIZES)
    return draw(low_ranks(shape)), draw(low_ranks(shape))


@given(pairs(), st.floats(-10, 10))
def test_the_algebra_is_that_of_matrices(pair: tuple[LowRank, LowRank], scale: float) -> None:
    a, b = pair
    close((a + b).dense(), a.dense() + b.dense())
    assert (a + b).rank == a.rank + b.rank
    close((a * scale).dense(), a.dense() * scale)
    close((scale * a).dense(), (a * scale).dense())
    close((a + a * -1.0).dense(), torch.zeros(a.shape, dtype=torch.float64), atol=1e-12, rtol=0)
    close(((a + b) * scale).dense(), (a * scale + b * scale).dense())
    close((a + b).dense(), (b + a).dense())


@given(low_ranks(), SEEDS)
def test_apply_is_multiplication_from_the_right_by_the_transpose(a: LowRank, seed: int) -> None:
    x = normal(seed, 2, 3, a.shape[1])
    close(a.apply(x), x @ a.dense().T)


@given(low_ranks(), st.integers(0, 4))
def test_padding_changes_the_rank_only(a: LowRank, extra: int) -> None:
    padded = a.pad(a.rank + extra)
    assert padded.rank == a.rank + extra
    assert padded.shape == a.shape
    assert torch.equal(padded.B[:, : a.rank], a.B)
    assert torch.equal(padded.A[: a.rank], a.A)
    close(padded.dense(), a.dense())


@given(low_ranks())
def test_norm_and_singular_values_are_those_of_the_full_matrix(a: LowRank) -> None:
    dense = a.dense()
    assert a.norm() == pytest.approx(float(dense.norm()), rel=1e-7, abs=1e-7)
    values = a.singular_values()
    close(values, torch.linalg.svdvals(dense)[: len(values)], atol=1e-9, rtol=1e-9)
    assert float((values**2).sum()) == pytest.approx(float((dense**2).sum()), abs=1e-9)


@given(low_ranks(), st.integers(0, 9))
def test_truncation_is_the_best_of_its_rank(a: LowRank, rank: int) -> None:
    """Eckart-Young: the error is the norm of the singular values left out."""
    cut, energy = a.truncate(rank)
    assert cut.rank <= rank
    assert cut.shape == a.shape
    dense = a.dense()
    left_out = torch.linalg.svdvals(dense)[rank:]
    assert float((dense - cut.dense()).norm()) == pytest.approx(float(left_out.norm()), abs=1e-8)
    whole = float((dense**2).sum())
    kept = float((cut.dense() ** 2).sum())
    assert energy == pytest.approx(kept / whole if whole > 1e-20 else 1.0, abs=1e-8)


@given(low_ranks(), st.integers(1, 5), SEEDS)
def test_no_other_matrix_of_that_rank_is_nearer(a: LowRank, rank: int, seed: int) -> None:
    cut, _ = a.truncate(rank)
    dense = a.dense()
    error = float((dense - cut.dense()).norm())
    other = normal(seed, a.shape[0], rank) @ normal(seed + 1, rank, a.shape[1])
    assert error <= float((dense - other).norm()) + 1e-9
    nudged = cut.dense() + 1e-3 * (normal(seed, a.shape[0], cut.rank) @ cut.A)
    assert error <= float((dense - nudged).norm()) + 1e-9


@given(low_ranks())
def test_truncating_to_the_full_rank_loses_nothing(a: LowRank) -> None:
    cut, energy = a.truncate(a.rank)
    close(cut.dense(), a.dense(), atol=1e-9, rtol=1e-9)
    assert energy == pytest.approx(1.0)


def test_truncation_keeps_the_type() -> None:
    a = LowRank(torch.randn(5, 4), torch.randn(4, 6))
    assert a.truncate(2)[0].B.dtype == a.truncate(2)[0].A.dtype == torch.float32
    assert a.to(dtype=torch.float64).B.dtype == torch.float64


def test_what_does_not_chain_is_refused() -> None:
    with pytest.raises(ValueError, match="chain"):
        LowRank(torch.zeros(3, 2), torch.zeros(3, 2))
    a = LowRank(torch.zeros(3, 2), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="cannot add"):
        a + LowRank(torch.zeros(4, 2), torch.zeros(2, 3))
    with pytest.raises(ValueError, match="cannot pad"):
        a.pad(1)
