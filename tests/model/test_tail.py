"""The upper layers alone, on the tokens from a cut on, give what the whole model gives."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hubedit.model.editable import EditableModel
from hubedit.model.hooks import replaced, run
from hubedit.model.tail import Tail
from hubedit.model.tokens import pad
from tests.model.test_hooks import random_factors
from tests.pico import FAMILIES

Editable = Callable[..., EditableModel]

_GENERATOR = torch.Generator().manual_seed(0)
# longer than every sliding window of the pico models; cut at the first, a middle and the last token
ROWS = [tuple(torch.randint(5, 200, (n,), generator=_GENERATOR).tolist()) for n in (5, 9, 12, 3)]
CUTS = [4, 7, 3, 0]


def last_hidden(em: EditableModel, row: tuple[int, ...]) -> Tensor:
    """(t, d): the residual stream after the last block, by a whole forward pass of this row alone."""
    last = em.num_layers - 1
    return run(em, pad([row], em.pad_id), hidden=[last]).hidden[last][0]


def whole(em: EditableModel, tail: Tail, hidden: Tensor) -> Tensor:
    """(b, s, d): what `Tail.run` gives at all positions."""
    b, s = len(tail.ids), tail.ids.shape[1] - tail.start
    row, column = torch.arange(b).repeat_interleave(s), torch.arange(s).repeat(b)
    return tail.run(em, hidden, row, column).view(b, s, -1)


def check(em: EditableModel, tail: Tail, out: Tensor, rows: list[int]) -> None:
    for i, n in enumerate(rows):
        expected = last_hidden(em, ROWS[n])[CUTS[n] :]
        torch.testing.assert_close(out[i, : len(expected)], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_it_is_the_full_forward_pass(family: str, editable: Editable) -> None:
    em = editable(family)
    for layer in range(em.num_layers):
        tail = Tail.of(em, layer, ROWS, CUTS)
        check(em, tail, whole(em, tail, tail.hidden), [0, 1, 2, 3])


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_change_at_the_cut_is_the_change_in_the_full_pass(family: str, editable: Editable) -> None:
    em, layer = editable(family), 1
    delta = torch.randn(len(ROWS), em.hidden_size)
    tail = Tail.of(em, layer, ROWS, CUTS)
    moved = tail.hidden.clone()
    moved[:, tail.start] += delta
    out = whole(em, tail, moved)
    for i, row in enumerate(ROWS):
        there = torch.zeros(1, len(row), em.hidden_size)
        there[0, CUTS[i]] = delta[i]

        def add(h: Tensor, there: Tensor = there) -> Tensor:
            return h + there

        with replaced(em, hidden={layer: add}):
            expected = last_hidden(em, row)[CUTS[i] :]
        torch.testing.assert_close(out[i, : len(expected)], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_some_positions_are_as_in_all_of_them(family: str, editable: Editable) -> None:
    em = editable(family)
    row, column = torch.tensor([3, 0, 1, 1]), torch.tensor([2, 0, 0, 1])
    for layer in range(em.num_layers):
        tail = Tail.of(em, layer, ROWS, CUTS)
        expected = whole(em, tail, tail.hidden)[row, column]
        torch.testing.assert_close(tail.run(em, tail.hidden, row, column), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "gpt_neox"])
@torch.no_grad()
def test_what_is_applied_is_seen_and_some_rows_can_be_taken(family: str, editable: Editable) -> None:
    em, layer = editable(family), 2
    patched = em.with_patch(random_factors(em, scale=0.5))
    tail = Tail.of(patched, layer, ROWS, CUTS)
    part = tail.select([1, 3])
    check(patched, part, whole(patched, part, part.hidden), [1, 3])
    edited = last_hidden(patched, ROWS[0])
    assert not torch.allclose(edited, last_hidden(em, ROWS[0]), atol=1e-2)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_reach_what_is_put_in_and_nothing_else(family: str, editable: Editable) -> None:
    em = editable(family)
    tail = Tail.of(em, 1, ROWS, CUTS)
    start = tail.hidden.clone().requires_grad_()
    at = torch.tensor([0])
    torch.autograd.backward(tail.run(em, start, at, at).sum())
    assert start.grad is not None
    assert float(start.grad[0, tail.start].abs().sum()) > 0
    assert float(start.grad[1:].abs().sum()) == 0, "rows do not see each other"
    assert all(p.grad is None for p in em.model.parameters())


def test_running_leaves_no_hook_and_no_longer_prefix(editable: Editable) -> None:
    em = editable("qwen2")
    tail = Tail.of(em, 0, ROWS, CUTS)
    first = whole(em, tail, tail.hidden)
    assert torch.equal(whole(em, tail, tail.hidden), first)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in em.model.modules())
    assert all("forward" not in em.block(layer).__dict__ for layer in range(em.num_layers))
