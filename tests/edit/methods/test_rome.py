"""ROME and its kin: the constraint they solve, and that facts follow one another on the growing patch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hubedit.edit.methods.prompts import contexts_of, published_rows
from hubedit.errors import ConfigError
from hubedit.model.editable import EditableModel
from hubedit.model.sites import Site
from tests.edit.editing import FACTS
from tests.edit.methods.dense import add, at_last, changed, edited, moments, near, ridged, settings

Editable = Callable[..., EditableModel]
SITE = Site(1, "mlp")


def keys(em: EditableModel, contexts: list[str], number: int, site: Site = SITE) -> tuple[Tensor, Tensor]:
    """The bare key and the one averaged over contexts of a fact."""
    rows = published_rows(em, [FACTS[number]], contexts)[0]
    found = torch.stack([at_last(em, r, site, 1)[0] for r in rows])
    return found[0], found.mean(0)


@pytest.mark.parametrize("whiten", [True, False])
@pytest.mark.parametrize("method", ["rome", "r-rome"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_facts_are_rank_one_updates_of_the_patched_model(
    family: str, method: str, whiten: bool, editable: Editable, tmp_path: Path
) -> None:
    em, config = editable(family), settings(method, "1", whiten=whiten)
    edit = edited(em, config, tmp_path)
    assert edit.targets is not None and set(edit.factors) == {SITE}
    contexts = contexts_of(em, config)
    c, growing = ridged(moments(em, config, tmp_path, SITE)), changed(em)
    expected = []
    for n in range(len(FACTS)):
        bare, mean = keys(growing, contexts, n)
        u = torch.linalg.solve(c, mean) if whiten else mean
        u = u / u.norm()
        k = bare if method == "rome" else mean
        delta = edit.targets.delta[n].double()
        expected.append(torch.outer(delta, u) / (u @ k))
        change = edit.factors[SITE].B[:, n : n + 1].double() @ edit.factors[SITE].A[n : n + 1].double()
        near(change, expected[n])
        near(change @ k, delta)  # (W + dW) k = v*
        add(growing, SITE, expected[n])
    near(edit.factors[SITE].dense(), sum(expected, torch.zeros_like(expected[0])))
    assert edit.factors[SITE].rank == len(FACTS)


def test_the_original_misses_its_own_averaged_key(editable: Editable, tmp_path: Path) -> None:
    """The mix that R-ROME mends: for the averaged key ROME writes another value than v*."""
    em, config = editable("llama"), settings("rome", "1")
    edit = edited(em, config, tmp_path, FACTS[:1])
    assert edit.targets is not None
    _, mean = keys(em, contexts_of(em, config), 0)
    met = edit.factors[SITE].dense().double() @ mean
    assert float((met - edit.targets.delta[0]).norm()) > 1e-3 * float(edit.targets.delta[0].norm())


@pytest.mark.parametrize("order", ["attention-first", "joint"])
def test_the_joint_method_in_rome_s_place_shares_the_residual(
    order: str, editable: Editable, tmp_path: Path
) -> None:
    em, config = editable("llama"), settings("intattn-rome", "1", alpha="0.3", order=order)
    edit = edited(em, config, tmp_path, FACTS[:1])
    assert edit.targets is not None
    attention, delta = Site(1, "attention"), edit.targets.delta[0].double()
    assert set(edit.factors) == {attention, SITE} and edit.alpha == {1: 0.3}
    contexts, growing = contexts_of(em, config), changed(em)
    rows = published_rows(em, FACTS[:1], contexts)[0]

    def hidden() -> Tensor:
        return torch.stack([at_last(growing, r, SITE, 1)[1] for r in rows]).mean(0)

    start, first = hidden(), keys(em, contexts, 0)[1]
    near(edit.factors[attention].dense().double() @ keys(em, contexts, 0, attention)[1], 0.3 * delta)
    add(growing, attention, edit.factors[attention].dense())
    between, second = hidden(), keys(growing, contexts, 0)[1]
    change = edit.factors[SITE].dense().double()
    if order == "joint":
        near(change @ first, 0.7 * delta)
    else:
        near(change @ second, start + delta - between, 1e-3)


@pytest.mark.parametrize(("alpha", "kind"), [("0", "mlp"), ("1", "attention")])
def test_the_ends_of_alpha_edit_one_site(alpha: str, kind: str, editable: Editable, tmp_path: Path) -> None:
    edit = edited(editable("llama"), settings("intattn-rome", "1", alpha=alpha), tmp_path, FACTS[:1])
    assert [site.kind for site in edit.factors] == [kind]


def test_one_layer_only(editable: Editable, tmp_path: Path) -> None:
    em = editable("llama")
    with pytest.raises(ConfigError, match="rome edits one layer"):
        edited(em, settings("rome", "1-2"), tmp_path)
    edit = edited(em, settings("rome", "auto"), tmp_path, FACTS[:2])
    assert edit.trace is not None
    mlp = edit.trace.ie_prob["mlp"][:-1]
    assert edit.layers == (mlp.index(max(mlp)),)
