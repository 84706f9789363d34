"""The last block at some positions gives what it gives there among all of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from hubedit.linalg import LowRank
from hubedit.model.editable import EditableModel
from hubedit.model.ending import final_at
from hubedit.model.hooks import before, run
from hubedit.model.load import load
from hubedit.model.sites import Site
from hubedit.model.tokens import Batch
from tests.model.test_hooks import batch_of, count_hooks, random_factors
from tests.pico import FAMILIES, pico

Editable = Callable[..., EditableModel]

ROW, COLUMN = torch.tensor([2, 0, 1, 1]), torch.tensor([0, 3, 5, 1])


def everywhere(em: EditableModel, batch: Batch) -> Tensor:
    last = em.num_layers - 1
    return run(em, batch, hidden=[last]).hidden[last]


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_it_is_what_the_whole_block_gives_there(family: str, editable: Editable) -> None:
    em = editable(family)
    batch = batch_of(em)
    expected = everywhere(em, batch)[ROW, COLUMN]
    torch.testing.assert_close(final_at(em, batch, ROW, COLUMN), expected, atol=1e-5, rtol=1e-5)
    patched = em.with_patch(random_factors(em, scale=0.5))
    edited = everywhere(patched, batch)[ROW, COLUMN]
    torch.testing.assert_close(final_at(patched, batch, ROW, COLUMN), edited, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(edited, expected, atol=1e-2)
    assert count_hooks(em) == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_factors_of_every_layer_get_the_same_gradients(family: str, editable: Editable) -> None:
    em = editable(family)
    batch, start = batch_of(em), random_factors(em)

    def gradients(at: Callable[[EditableModel], Tensor]) -> list[Tensor]:
        leaves = {site: f.B.clone().requires_grad_() for site, f in start.items()}
        patched = em.with_patch({site: LowRank(b, start[site].A) for site, b in leaves.items()})
        return list(torch.autograd.grad(at(patched).square().sum(), list(leaves.values())))

    some = gradients(lambda patched: final_at(patched, batch, ROW, COLUMN))
    every = gradients(lambda patched: everywhere(patched, batch)[ROW, COLUMN])
    for one, other in zip(some, every, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)
    assert all(float(one.abs().sum()) > 0 for one in some)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@torch.no_grad()
def test_half_precision_stays(tmp_path_factory: pytest.TempPathFactory, dtype: str) -> None:
    em = load(str(pico("gemma2", tmp_path_factory.mktemp("half"))), device="cpu", dtype=dtype)
    batch = batch_of(em)
    found = final_at(em, batch, ROW, COLUMN)
    assert found.dtype == getattr(torch, dtype)
    torch.testing.assert_close(found, everywhere(em, batch)[ROW, COLUMN], atol=0.02, rtol=0.02)


@torch.no_grad()
def test_nothing_stays_behind_when_a_pass_fails(editable: Editable) -> None:
    em = editable("llama")
    batch = batch_of(em)
    expected = everywhere(em, batch)
    with pytest.raises(IndexError):
        final_at(em, batch, ROW, COLUMN + 1000)
    assert count_hooks(em) == 0
    assert torch.equal(everywhere(em, batch), expected)


@torch.no_grad()
def test_the_last_projections_see_these_positions_alone(editable: Editable) -> None:
    em = editable("qwen2")
    first, last = Site(0, "mlp"), Site(em.num_layers - 1, "mlp")
    seen: dict[Site, int] = {}

    def counter(site: Site) -> Callable[[nn.Module, tuple[Tensor]], None]:
        def count(module: nn.Module, args: tuple[Tensor]) -> None:
            seen[site] = args[0].shape[:-1].numel()

        return count

    with before(em.site(first), counter(first)), before(em.site(last), counter(last)):
        final_at(em, batch_of(em), ROW, COLUMN)
    assert seen[last] == len(ROW) < seen[first]
