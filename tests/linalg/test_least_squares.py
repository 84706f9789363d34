"""The right factor of regularised least squares is that of the dense normal equations."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from hubedit.linalg import right_factor


@given(st.integers(1, 5), st.integers(2, 8), st.integers(0, 3), st.integers(0, 1000))
def test_it_minimises_the_weighted_squares(count: int, width: int, more: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    rows = count + more
    keys = torch.randn(rows, width, generator=draw, dtype=torch.float64)
    owner = torch.cat([torch.arange(count), torch.randint(count, (more,), generator=draw)])
    weight = torch.rand(rows, generator=draw, dtype=torch.float64) + 0.1
    root = torch.randn(width, width, generator=draw, dtype=torch.float64)
    preserved = root @ root.T + 0.1 * torch.eye(width, dtype=torch.float64)
    delta = torch.randn(count, 3, generator=draw, dtype=torch.float64)
    change = (delta.T @ right_factor(keys, owner, weight, preserved.clone(), count)).requires_grad_()
    missed = change @ keys.T - delta[owner].T
    loss = (weight * missed.square()).sum() + torch.trace(change @ preserved @ change.T)
    (slope,) = torch.autograd.grad(loss, change)
    assert slope.abs().max() < 1e-8 * (1 + loss.item())


def test_what_is_preserved_with_all_weight_is_not_changed() -> None:
    keys, owner = torch.eye(4)[:2], torch.arange(2)
    right = right_factor(keys, owner, torch.ones(2), 1e12 * torch.eye(4, dtype=torch.float64), 2)
    assert right.abs().max() < 1e-11


def test_keys_that_repeat_do_not_break_it() -> None:
    keys, owner = torch.ones(3, 4), torch.tensor([0, 0, 1])
    right = right_factor(keys, owner, torch.ones(3), torch.zeros(4, 4, dtype=torch.float64), 2)
    assert torch.isfinite(right).all()
