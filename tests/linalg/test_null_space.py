"""The null space, updates confined to it, rank-one updates and equality-constrained ones."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from hubedit.linalg import (
    KeySpace,
    LowRank,
    Preserved,
    Threshold,
    direction,
    null_space,
    output_drift,
    rank_one,
)
from tests.linalg.strategies import SEEDS, SIZES, Problem, low_ranks, normal, problems
from tests.linalg.test_solve import RIDGE, near

WIDE = st.integers(2, 7)


@given(problems(), st.floats(-4, 0).map(lambda e: 10.0**e))
def test_the_basis_spans_what_hardly_any_input_uses(problem: Problem, share: float) -> None:
    c = problem.moment
    basis = null_space(c, Threshold(share, relative=True))
    largest = float(torch.linalg.eigvalsh(c)[-1])
    torch.testing.assert_close(basis.T @ basis, torch.eye(basis.shape[1], dtype=torch.float64))
    used = torch.trace(basis.T @ c @ basis)
    assert float(used) <= share * largest * basis.shape[1] * (1 + 1e-9)
    rest = torch.eye(len(c), dtype=torch.float64) - basis @ basis.T
    kept = torch.linalg.eigvalsh(rest @ c @ rest)[basis.shape[1] :]
    assert bool((kept >= share * largest * (1 - 1e-6)).all())


@given(problems(), st.floats(0.01, 10))
def test_relative_is_absolute_times_the_largest(problem: Problem, scale: float) -> None:
    largest = float(torch.linalg.eigvalsh(problem.moment)[-1])
    assume(largest > 0)
    one = null_space(problem.moment, Threshold(0.3, relative=True))
    # an eigenvalue on the very bound may fall on either side
    values = torch.linalg.eigvalsh(problem.moment) / largest
    assume(bool(((values - 0.3).abs() > 1e-6).all()))
    two = null_space(problem.moment, Threshold(0.3 * largest))
    three = null_space(scale * problem.moment, Threshold(0.3, relative=True))
    near(one @ one.T, two @ two.T)
    near(one @ one.T, three @ three.T)


def test_a_moment_of_zero_leaves_every_direction_free() -> None:
    zero = torch.zeros(3, 3, dtype=torch.float64)
    assert null_space(zero, Threshold(0.01, relative=True)).shape == (3, 3)


@given(SEEDS, WIDE, st.integers(1, 5), SIZES, st.floats(-2, 2).map(lambda e: 10.0**e))
def test_a_solve_in_a_basis_is_the_projected_equation(
    seed: int, width: int, facts: int, out: int, lam: float
) -> None:
    """(lam I + P K^T K)^-1 P K^T R, AlphaEdit's form."""
    keys, residuals = normal(seed, facts, width), normal(seed + 1, facts, out)
    basis = torch.linalg.qr(normal(seed + 2, width, max(1, width // 2)))[0]
    eye = torch.eye(width, dtype=torch.float64)
    p = basis @ basis.T
    expected = torch.linalg.solve(p @ keys.T @ keys + lam * eye, p @ keys.T @ residuals).T
    own = KeySpace.of(keys, Preserved.of(eye, ridge=0.0, basis=basis))
    found = own.solve(residuals, lam)
    near(found.dense(), expected)
    near(found.dense() @ p, expected)


@given(problems(most_facts=5))
def test_exact_meets_independent_keys_with_the_least_drift(problem: Problem) -> None:
    own = KeySpace.of(problem.keys, Preserved.of(problem.moment, RIDGE))
    assume(float(own.values.min()) > 1e-4 * float(own.values.max()))
    found = own.exact(problem.residuals)
    near(found.apply(problem.keys), problem.residuals, 1e-6)
    near(found.dense(), own.solve(problem.residuals, 1e-9 * float(own.values.min())).dense(), 1e-5)
    inverse = torch.linalg.inv(problem.preserved(RIDGE))
    k = problem.keys
    near(found.dense(), problem.residuals.T @ torch.linalg.inv(k @ inverse @ k.T) @ k @ inverse, 1e-5)


@given(SEEDS, WIDE, SIZES)
def test_exact_splits_the_difference_of_equal_keys(seed: int, width: int, out: int) -> None:
    key, residuals = normal(seed, 1, width), normal(seed + 1, 2, out)
    own = KeySpace.of(torch.cat([key, key]), Preserved.of(torch.eye(width), 0.0))
    met = own.exact(residuals).apply(key)
    near(met, residuals.mean(0, keepdim=True))


@given(problems(most_facts=1))
def test_rank_one_is_exact_for_one_fact(problem: Problem) -> None:
    """With the same key in both places ROME's update is the equality-constrained one."""
    preserved = Preserved.of(problem.moment, RIDGE)
    key, residual = problem.keys[0], problem.residuals[0]
    u = direction(key, preserved)
    assert float(u.norm()) == pytest.approx(1)
    near(
        u * torch.linalg.solve(problem.preserved(RIDGE), key).norm(),
        torch.linalg.solve(problem.preserved(RIDGE), key),
    )
    found = rank_one(u, key, residual)
    near(found.dense() @ key, residual)
    near(found.dense(), KeySpace.of(problem.keys, preserved).exact(problem.residuals).dense())
    near(direction(key), key / key.norm())


@given(low_ranks(), SEEDS)
def test_drift_of_factors_is_the_trace(factor: LowRank, seed: int) -> None:
    x = normal(seed, 9, factor.shape[1])
    c = x.T @ x / 9
    dense = factor.dense()
    assert output_drift(factor, c) == pytest.approx(
        float(torch.trace(dense @ c @ dense.T)), rel=1e-6, abs=1e-9
    )


@given(low_ranks())
def test_compressing_changes_nothing_but_the_rank(factor: LowRank) -> None:
    small = factor.compress()
    assert small.rank == min(factor.rank, *factor.shape)
    torch.testing.assert_close(small.dense(), factor.dense(), atol=1e-8, rtol=1e-8)
