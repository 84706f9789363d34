"""What an edit of Qwen2.5-7B takes in the stages whose memory grows with the width of a site: under 24 GB.

The model is there on the "meta" device, with its true sizes and without numbers. What the solve takes is
counted at a small width, in square matrices, and scales with the square of it.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hubedit.linalg import LowRank, SecondMoment, mean_of, output_drift, right_factor
from hubedit.model.editable import EditableModel
from hubedit.model.memory import TokenBudget
from hubedit.model.sites import Site
from tests.benchmarks.shapes import model
from tests.counting import Allocations, matrix

WIDTH = 18944
LIMIT, WANTED = 24e9, 20e9


@pytest.fixture(scope="module")
def em() -> EditableModel:
    return model("qwen2.5-7b", "meta", "bfloat16")


@pytest.fixture(scope="module")
def weights(em: EditableModel) -> int:
    return sum(p.numel() * p.element_size() for p in em.model.parameters())


def test_the_sizes_are_those_of_the_model(em: EditableModel, weights: int) -> None:
    assert em.d_in(Site(8, "mlp")) == WIDTH and 15.0e9 < weights < 15.5e9


def test_statistics_of_a_site(em: EditableModel, weights: int) -> None:
    tokens = TokenBudget(torch.device("cuda")).tokens
    ids = torch.zeros(tokens // 128, 128, dtype=torch.long, device="meta")
    total = SecondMoment(WIDTH, "meta")
    inputs: list[torch.Tensor] = []
    body: Any = em.model.get_submodule("model")
    handle = em.site(Site(8, "mlp")).register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    with Allocations() as used, torch.no_grad():
        # a mask is looked at, which without numbers cannot be done
        body(input_ids=ids, attention_mask={"full_attention": None}, use_cache=False)
        total.update(inputs[0].clone())  # as without padding
    handle.remove()
    assert weights + matrix(WIDTH) + used.peak < WANTED


def test_the_mean_takes_only_what_it_returns() -> None:
    total = torch.ones(300, 300, dtype=torch.float64)
    with Allocations() as used:
        mean_of(total, 3)
    assert used.peak <= matrix(300, torch.float32)


def test_the_solve_of_a_site(weights: int) -> None:
    width, count = 600, 4
    keys, owner = torch.randn(count, width), torch.arange(count)
    moment = torch.eye(width)
    with Allocations() as used:
        preserved = moment.to(torch.float64).mul_(30.0)
        right_factor(keys, owner, torch.ones(count), preserved, count)
    share = used.peak / matrix(width)
    assert share < 2.1  # the sum and its factor, beside rows of keys
    assert weights + share * matrix(WIDTH) < LIMIT


@pytest.mark.parametrize("rank", [4, 500])
def test_the_drift_of_a_site_takes_one_more_matrix(rank: int) -> None:
    factor, moment = LowRank(torch.randn(200, rank), torch.randn(rank, 600)), torch.eye(600)
    with Allocations() as used:
        found = output_drift(factor, moment)
        factor.norm()
    assert found == pytest.approx(float(factor.dense().double().square().sum()), rel=1e-4)
    # the moment in float64, and blocks of no more than dW and its factors
    assert used.peak < matrix(600) + 4 * 8 * 600 * 500
