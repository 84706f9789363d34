"""Ten times the facts are ten times the work: products and look-ups are counted, not timed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from hubedit.edit.rows import Row
from hubedit.edit.solve.keys import bare, halves, uniform
from hubedit.facts.together import together
from hubedit.linalg import LowRank, output_drift, right_factor

OUT, WIDTH = 24, 64
COUNTS = (300, 1000, 3000)


def linear(work: Callable[[int], float]) -> None:
    """Fails where the work grows faster than the number of facts, beside what does not grow."""
    small, middle, large = (work(count) for count in COUNTS)
    assert middle <= small * COUNTS[1] / COUNTS[0] * 1.05
    assert large <= middle * COUNTS[2] / COUNTS[1] * 1.05


def solved(count: int) -> LowRank:
    """A site's update as the joint edit finds it, with its report."""
    keys, owner = torch.randn(6 * count, WIDTH), torch.arange(count).repeat_interleave(6)
    preserved = torch.eye(WIDTH, dtype=torch.float64)
    right = right_factor(keys, owner, torch.full((6 * count,), 1 / 6), preserved, count)
    factor = LowRank(torch.randn(OUT, count), right.float()).compress()
    output_drift(factor, torch.eye(WIDTH))
    factor.norm()
    return factor


def test_the_solve_and_its_report() -> None:
    def products(count: int) -> float:
        with FlopCounterMode(display=False) as counter:
            solved(count)
        return float(counter.get_total_flops())

    linear(products)


@pytest.mark.parametrize("count", COUNTS)
def test_a_patch_has_no_rank_above_that_of_its_matrix(count: int) -> None:
    factor = solved(count)
    assert factor.rank == min(OUT, WIDTH)
    assert factor.A.numel() + factor.B.numel() == OUT * WIDTH + OUT * OUT


def test_means_over_rows_hold_one_number_for_each_row() -> None:
    rows = [Row(fact, (1, 2), 1, ()) for fact in range(1000) for _ in range(4)]
    for weights in (bare(rows, 1000), halves(rows, 1000), uniform(rows, 1000)):
        assert weights.values().numel() == len(rows)
        assert torch.allclose(weights.sum(1).to_dense(), torch.ones(1000, dtype=torch.float64))
    assert halves(rows[:4], 1).to_dense().tolist() == [[0.5, *[0.5 / 3] * 3]]


@dataclass(frozen=True)
class Name:
    """Counts how often it is looked up."""

    text: str
    looked: Counter[str]

    def __hash__(self) -> int:
        self.looked["up"] += 1
        return hash(self.text)


def test_groups_of_facts_that_share_names_in_a_chain() -> None:
    def looked(count: int) -> float:
        seen: Counter[str] = Counter()
        # pairs first, and then what joins each with the next
        pairs = [
            (Name(f"{n}", seen), Name(f"{n + 1}", seen)) for n in (*range(0, count, 2), *range(1, count, 2))
        ]
        assert set(together(pairs)) == {0}
        return seen["up"]

    linear(looked)


def test_groups_are_numbered_in_the_order_of_the_things() -> None:
    assert together([("a",), ("b",), ("c", "b"), ("d",), ("d", "a")]) == (0, 1, 1, 0, 0)
