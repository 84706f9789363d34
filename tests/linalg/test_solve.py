"""The closed-form solve against the normal equations it stands for, and what lambda does to it."""

from __future__ import annotations

import math
import random

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from hubedit.linalg import KeySpace, Preserved, output_drift, output_power
from tests.linalg.strategies import SEEDS, Problem, normal, problems

RIDGE = 1e-2
LAMBDAS = st.floats(-3, 5).map(lambda e: 10.0**e)


def space(problem: Problem, ridge: float = RIDGE) -> KeySpace:
    return KeySpace.of(problem.keys, Preserved.of(problem.moment, ridge))


def near(found: Tensor, expected: Tensor, relative: float = 1e-6) -> None:
    scale = max(float(expected.abs().max()), 1e-30)
    torch.testing.assert_close(found / scale, expected / scale, atol=relative, rtol=relative)


@given(problems(), LAMBDAS)
def test_it_is_the_dense_ridge_solution(problem: Problem, lam: float) -> None:
    found = space(problem).solve(problem.residuals, lam)
    near(found.dense(), problem.dense(lam, RIDGE))
    assert found.rank == len(problem.keys)
    assert found.B.dtype == found.A.dtype == torch.float64


@given(problems(most_facts=9))
def test_what_the_facts_do_not_ask_for_stays(problem: Problem) -> None:
    """dW^T lies in the span of C^-1 K^T: an input C y is left alone where y is orthogonal to every key."""
    change = space(problem).solve(problem.residuals, 1.0).dense() @ problem.preserved(RIDGE)
    orthogonal = torch.linalg.svd(problem.keys)[2][len(problem.keys) :]
    assert float((change @ orthogonal.T).norm()) <= 1e-6 * float(change.norm())


@given(problems())
def test_a_large_lambda_drives_the_delta_to_zero(problem: Problem) -> None:
    """|dW| <= |R| |K C^-1| / lambda, and that is how it ends."""
    own = space(problem)
    norms = {e: own.solve(problem.residuals, 10.0**e).norm() for e in (0, 4, 8, 10, 12)}
    most = float(problem.residuals.norm() * own.dual.norm())
    assert all(norm <= most / 10.0**e * (1 + 1e-9) for e, norm in norms.items())
    assume(float(own.values.max()) < 1e7)
    assert norms[12] == pytest.approx(norms[10] / 100, rel=1e-2)


@given(problems())
def test_a_tiny_lambda_meets_the_residuals_of_independent_keys(problem: Problem) -> None:
    own = space(problem)
    assume(float(own.values.min()) > 1e-2)
    found = own.solve(problem.residuals, 1e-8)
    near(found.apply(problem.keys), problem.residuals, 1e-4)


@given(problems(), LAMBDAS, st.randoms(use_true_random=False))
def test_the_order_of_facts_does_not_matter(problem: Problem, lam: float, rng: random.Random) -> None:
    order = list(range(len(problem.keys)))
    rng.shuffle(order)
    other = Problem(problem.keys[order], problem.residuals[order], problem.moment)
    expected = space(problem).solve(problem.residuals, lam).dense()
    near(space(other).solve(other.residuals, lam).dense(), expected)


@given(problems(), LAMBDAS)
def test_a_fact_given_twice_weighs_twice_and_breaks_nothing(problem: Problem, lam: float) -> None:
    """K twice is K^T K twice: the solution for lambda / 2."""
    keys, residuals = problem.keys.repeat(2, 1), problem.residuals.repeat(2, 1)
    doubled = Problem(keys, residuals, problem.moment)
    expected = space(problem).solve(problem.residuals, lam / 2).dense()
    near(space(doubled).solve(residuals, lam).dense(), expected)


@given(problems(), LAMBDAS, SEEDS)
def test_it_is_linear_in_the_residuals(problem: Problem, lam: float, seed: int) -> None:
    own, other = space(problem), normal(seed, *problem.residuals.shape)
    total = own.solve(problem.residuals + 2 * other, lam).dense()
    near(total, (own.solve(problem.residuals, lam) + own.solve(other, lam) * 2).dense())


@given(problems(), LAMBDAS)
def test_the_unit_of_keys_does_not_matter(problem: Problem, lam: float) -> None:
    """Keys and moment in other units: the same map."""
    other = Problem(problem.keys * 10, problem.residuals, problem.moment * 100)
    expected = space(problem).solve(problem.residuals, lam).dense()
    near(space(other).solve(other.residuals, lam).dense() * 10, expected)


def test_no_residual_is_no_change() -> None:
    own = KeySpace.of(normal(0, 3, 4), Preserved.of(torch.eye(4)))
    assert own.solve(torch.zeros(3, 2), 1.0).norm() == 0


@pytest.mark.parametrize("lam", [0.0, -1.0])
def test_lambda_must_be_positive(lam: float) -> None:
    own = KeySpace.of(normal(0, 1, 4), Preserved.of(torch.eye(4)))
    with pytest.raises(ValueError, match="positive"):
        own.solve(torch.zeros(1, 2), lam)


def test_the_ridge_stands_in_where_the_corpus_never_was() -> None:
    """A moment of rank one, and one of zeros, still give a factor."""
    moment = torch.outer(torch.ones(4), torch.ones(4))
    factor = Preserved.of(moment, 1e-4).factor
    near(factor @ factor.T, moment.double() + 1e-4 * torch.eye(4, dtype=torch.float64))
    assert torch.equal(Preserved.of(torch.zeros(3, 3)).factor, torch.eye(3, dtype=torch.float64))
    given = torch.eye(3)
    Preserved.of(given)
    assert torch.equal(given, torch.eye(3)), "the moment itself is not changed"


def test_what_is_no_second_moment_is_refused() -> None:
    with pytest.raises(RuntimeError, match="positive-definite"):
        Preserved.of(torch.diag(torch.tensor([1.0, -1.0])))
    with pytest.raises(RuntimeError, match="positive-definite"):
        Preserved.of(torch.full((2, 2), math.nan))


@given(problems(), LAMBDAS)
def test_output_drift_is_the_dense_trace(problem: Problem, lam: float) -> None:
    found = space(problem).solve(problem.residuals, lam)
    expected = float(torch.trace(found.dense() @ problem.moment.double() @ found.dense().T))
    assert output_drift(found, problem.moment) == pytest.approx(expected, rel=1e-6, abs=1e-12)


@given(SEEDS)
def test_output_power_is_the_mean_squared_output(seed: int) -> None:
    weight, x = normal(seed, 3, 5), normal(seed + 1, 20, 5)
    expected = float((x @ weight.T).square().sum(1).mean())
    assert output_power(weight, x.T @ x / 20) == pytest.approx(expected)
