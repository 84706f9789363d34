"""IntAttn-Edit against its equations written out densely, and at the ends of alpha."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hubedit.edit.methods.context_templates import contexts_of, published_rows
from hubedit.edit.solve.residual import residual, split
from hubedit.model.editable import EditableModel
from hubedit.model.sites import Site
from hubedit.presets import PRESETS, preset
from tests.edit.editing import FACTS
from tests.edit.methods import dense
from tests.edit.methods.dense import edited, moments, near, ridged, settings

Editable = Callable[..., EditableModel]
LAYERS = (1, 2)
SITES = {
    "0": {Site(n, "mlp") for n in LAYERS},
    "0.3": {Site(n, kind) for n in LAYERS for kind in ("mlp", "attention")},
    "1": {Site(n, "attention") for n in LAYERS},
}


@pytest.mark.parametrize("alpha", SITES)
@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2"])
def test_both_sites_are_their_equations(family: str, alpha: str, editable: Editable, tmp_path: Path) -> None:
    """(alpha R)^T K_a (lam C_a + K_a^T K_a)^-1 and ((1 - alpha) R)^T K_m (lam C_m + K_m^T K_m)^-1, over two
    layers, the second of which sees the first one changed."""
    em, config = editable(family), settings("intattn", "1-2", lam=20.0, alpha=alpha)
    edit = edited(em, config, tmp_path)
    assert edit.targets is not None
    assert set(edit.factors) == SITES[alpha] and edit.alpha == dict.fromkeys(LAYERS, float(alpha))

    def solve(site: Site, k: Tensor, r: Tensor) -> Tensor:
        c = ridged(moments(em, config, tmp_path, site))
        change: Tensor = r.T @ k @ torch.linalg.inv(config.lam * c + k.T @ k)
        return change

    rows = published_rows(em, FACTS, contexts_of(em, config))[0]
    expected = dense.through_layers(
        dense.changed(em), rows, edit.targets.delta, LAYERS, solve, dict(edit.alpha)
    )
    for site, change in expected.items():
        assert float(change.norm()) > 0 and edit.factors[site].rank == len(FACTS)
        near(edit.factors[site].dense(), change)


def test_alpha_0_is_memit(editable: Editable, tmp_path: Path) -> None:
    em = editable("qwen2")
    ours = edited(em, settings("intattn", "1-2", lam=20.0, alpha="0"), tmp_path)
    memit = edited(em, settings("memit", "1-2", lam=20.0), tmp_path)
    assert set(ours.factors) == set(memit.factors)
    for site, factor in memit.factors.items():
        near(ours.factors[site].dense(), factor.dense().double(), 1e-6)


def test_layers_may_have_shares_of_their_own(editable: Editable, tmp_path: Path) -> None:
    """Both traced: the shares of "per-layer" are one for each layer, that of "auto" one for all."""
    em = editable("llama")
    found = {a: edited(em, settings("intattn", "1-2", alpha=a), tmp_path) for a in ("auto", "per-layer")}
    assert found["auto"].trace is not None
    assert len(set(found["auto"].alpha.values())) == 1
    assert found["per-layer"].alpha.keys() == found["auto"].alpha.keys()
    for edit in found.values():
        assert set(edit.factors) == {
            Site(layer, kind) for layer, share in edit.alpha.items() for kind in split(share)
        }


def test_the_split_adds_up_to_the_residual() -> None:
    z, hidden = torch.randn(3, 4), torch.randn(3, 4)
    r = residual(z, hidden, 2)
    torch.testing.assert_close(2 * r, z - hidden)
    for alpha in (0.0, 0.3, 1.0):
        parts = split(alpha)
        assert parts.get("attention", 0.0) == alpha and sum(parts.values()) == 1
        assert all(parts.values()), "a site without a share is not edited"


@pytest.mark.parametrize("name", PRESETS)
def test_a_paper_s_preset_is_this_method(name: str) -> None:
    config = preset(name)
    assert config == preset(name, "intattn")
    assert (config.method, config.layers, config.lam) == ("intattn", "4-8", 15000.0)
    memit = preset(name, "memit")
    assert replace(config, method="memit", alpha="0") == memit, "MEMIT's settings, and an alpha"
