"""ROME and its kin: the constraint they solve, and that facts follow one another on the growing patch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hubedit.edit.methods.context_templates import contexts_of, published_rows
from hubedit.errors import ConfigError
from hubedit.facts import Fact
from hubedit.model.editable import EditableModel
from hubedit.model.sites import Site
from tests.edit.editing import FACTS
from tests.edit.methods.dense import add, changed, edited, moments, near, ridged, settings, states

Editable = Callable[..., EditableModel]
SITE = Site(1, "mlp")


def seen(em: EditableModel, contexts: list[str], number: int, site: Site = SITE) -> dict[str, Tensor]:
    """What `dense.states` sees of a fact: of the bare prompt, and "mean ..." over it and the contexts."""
    rows = published_rows(em, [FACTS[number]], contexts)[0]
    every = [states(em, r, site, 1) for r in rows]
    means = {f"mean {name}": torch.stack([one[name] for one in every]).mean(0) for name in every[0]}
    return {**every[0], **means}


@pytest.mark.parametrize("whiten", [True, False])
@pytest.mark.parametrize("method", ["rome", "r-rome"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_facts_are_rank_one_updates_of_the_patched_model(
    family: str, method: str, whiten: bool, editable: Editable, tmp_path: Path
) -> None:
    """(W + dW) k0 = v*, with v* what W writes at the bare prompt and delta; R-ROME's k0, and so W k0, is
    averaged over contexts."""
    em, config = editable(family), settings(method, "1", whiten=whiten)
    edit = edited(em, config, tmp_path)
    assert edit.targets is not None and set(edit.factors) == {SITE}
    contexts = contexts_of(em, config)
    c, growing = ridged(moments(em, config, tmp_path, SITE)), changed(em)
    expected = []
    for n in range(len(FACTS)):
        now = seen(growing, contexts, n)
        u = torch.linalg.solve(c, now["mean key"]) if whiten else now["mean key"]
        u = u / u.norm()
        mean = "" if method == "rome" else "mean "
        k, written = now[f"{mean}key"], now[f"{mean}written"]
        value = now["written"] + edit.targets.delta[n].double()
        expected.append(torch.outer(value - written, u) / (u @ k))
        change = edit.factors[SITE].B[:, n : n + 1].double() @ edit.factors[SITE].A[n : n + 1].double()
        near(change, expected[n])
        near(written + change @ k, value)
        add(growing, SITE, expected[n])
    near(edit.factors[SITE].dense(), sum(expected, torch.zeros_like(expected[0])))
    assert edit.factors[SITE].rank == len(FACTS)


def test_the_original_misses_its_own_averaged_key(editable: Editable, tmp_path: Path) -> None:
    """The mix that R-ROME mends: for the averaged key ROME writes another value than v*."""
    em, config = editable("llama"), settings("rome", "1")
    edit = edited(em, config, tmp_path, FACTS[:1])
    assert edit.targets is not None
    mean = seen(em, contexts_of(em, config), 0)["mean key"]
    met = edit.factors[SITE].dense().double() @ mean
    assert float((met - edit.targets.delta[0]).norm()) > 1e-3 * float(edit.targets.delta[0].norm())


def test_intattn_in_rome_s_place_shares_the_value(editable: Editable, tmp_path: Path) -> None:
    """Both sites from the same states, each its share of what R-ROME writes at the MLP alone."""
    em, config = editable("llama"), settings("intattn-rome", "1", alpha="0.3")
    edit = edited(em, config, tmp_path, FACTS[:1])
    assert edit.targets is not None
    assert set(edit.factors) == {Site(1, "attention"), SITE} and edit.alpha == {1: 0.3}
    mlp = seen(em, contexts_of(em, config), 0)
    whole = mlp["written"] + edit.targets.delta[0].double() - mlp["mean written"]
    for site, share in ((Site(1, "attention"), 0.3), (SITE, 0.7)):
        now = seen(em, contexts_of(em, config), 0, site)
        near(edit.factors[site].dense().double() @ now["mean key"], share * whole)


@pytest.mark.parametrize("alpha", [0.3, 1])
@pytest.mark.parametrize("family", ["gemma2", "granite"])
def test_sites_share_what_the_stream_moves_by(
    family: str, alpha: float, editable: Editable, tmp_path: Path
) -> None:
    """Behind a norm (Gemma) the direction is exact, and the length as far as the norm allows; a multiple of
    what a site writes (Granite) is divided out."""
    em, config = editable(family), settings("intattn-rome", "1", alpha=str(alpha))
    edit = edited(em, config, tmp_path, FACTS[:1])
    assert edit.targets is not None
    mlp = seen(em, contexts_of(em, config), 0)
    before = mlp["mean written"]
    whole = stream(em, SITE, mlp["written"] + edit.targets.delta[0].double()) - stream(em, SITE, before)
    assert len(edit.factors) == (2 if alpha < 1 else 1)
    for site in edit.factors:
        share = alpha if site.kind == "attention" else 1 - alpha
        now = seen(em, contexts_of(em, config), 0, site)
        new = now["mean written"] + edit.factors[site].dense().double() @ now["mean key"]
        want = stream(em, site, now["mean written"]) + share * whole
        found = stream(em, site, new)
        assert float(torch.nn.functional.cosine_similarity(found, want, 0)) > 0.999, site
        if family == "granite":
            near(found, want)


def stream(em: EditableModel, site: Site, written: Tensor) -> Tensor:
    """What the residual stream gets of what a site writes, by the model's own norm."""
    name = em.family.norm_after(site)
    if name is None:
        return written * em.residual_multiplier
    normed: Tensor = em.model.get_submodule(name)(written[None].float())
    return normed[0].double()


@pytest.mark.parametrize("method", ["rome", "joint"])
def test_the_last_layer_can_be_edited(method: str, editable: Editable, tmp_path: Path) -> None:
    """There a pass sees every position too, though most are never scored. Only what is predicted right behind
    the subject can change."""
    em = editable("llama")
    last = em.num_layers - 1
    facts = [FACTS[0], Fact(f"Here comes {FACTS[0].subject}", FACTS[0].subject, FACTS[0].target)]
    edit = edited(em, replace(settings(method, str(last)), alpha="0"), tmp_path, facts[1:])
    assert edit.targets is not None and set(edit.factors) == {Site(last, "mlp")}
    assert float(edit.targets.delta.norm()) > 0
    both = edited(em, replace(settings(method, str(last)), alpha="0"), tmp_path, facts)
    assert set(both.factors) == {Site(last, "mlp")}


def test_alpha_0_in_rome_s_place_is_r_rome(editable: Editable, tmp_path: Path) -> None:
    em = editable("llama")
    ours = edited(em, settings("intattn-rome", "1", alpha="0"), tmp_path)
    near(
        ours.factors[SITE].dense(),
        edited(em, settings("r-rome", "1"), tmp_path).factors[SITE].dense().double(),
    )


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
