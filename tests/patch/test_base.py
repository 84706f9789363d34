"""Which model a patch was made for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hubedit.checkpoint.merge import merge
from hubedit.errors import PatchError
from hubedit.linalg import LowRank
from hubedit.model.editable import EditableModel
from hubedit.model.fetch import find
from hubedit.model.load import load
from hubedit.model.sites import Site
from hubedit.patch import Patch, base_record, tensor_sha256

Editable = Callable[..., EditableModel]


def patch_for(em: EditableModel, sites: tuple[Site, ...]) -> Patch:
    factors = {}
    for site in sites:
        d_out, d_in = em.weight(site).shape
        factors[em.module_name(site)] = LowRank(torch.randn(d_out, 2), torch.randn(2, d_in))
    return Patch(factors, {"base": base_record(em, sites)}, em.ref, em.commit, (), em.family.conv1d)


SITES = (Site(1, "attention"), Site(2, "mlp"))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_patch_knows_its_base(editable: Editable, tmp_path: Path, family: str) -> None:
    em = editable(family)
    patch = Patch.load(patch_for(em, SITES).save(tmp_path / "p"))
    patch.fits(em)
    assert set(patch.sites(em).values()) == set(patch.by_site(em)) == set(SITES)
    hashes = dict(patch.record["base"]["tensors"])
    hashes[em.module_name(SITES[1])] = "0" * 64
    other = Patch(patch.factors, {"base": {"tensors": hashes}}, patch.base)
    with pytest.raises(PatchError, match=f"{em.module_name(SITES[1])} has other weights"):
        other.fits(em)
    with pytest.raises(PatchError, match="does not say"):
        Patch(patch.factors, {}, patch.base).fits(em)


def test_a_patch_for_another_architecture_is_refused(editable: Editable) -> None:
    em = editable("llama")
    gpt2 = patch_for(editable("gpt2"), SITES)
    with pytest.raises(PatchError, match="no editable module") as raised:
        gpt2.sites(em)
    assert raised.value.hint == f"the patch was made for {gpt2.base}"
    wide = {em.module_name(SITES[1]): LowRank(torch.ones(32, 1), torch.ones(1, 65))}
    with pytest.raises(PatchError, match=r"is 32 x 64 in .* but 32 x 65 in the patch"):
        Patch(wide, {}, "b").sites(em)


@given(st.sampled_from([torch.bfloat16, torch.float16, torch.float32]), st.integers(0, 9))
def test_the_hash_of_a_weight_does_not_depend_on_the_type_it_was_loaded_in(
    dtype: torch.dtype, seed: int
) -> None:
    weight = torch.randn(5, 4, generator=torch.Generator().manual_seed(seed)).to(dtype)
    assert tensor_sha256(weight) == tensor_sha256(weight.float()) == tensor_sha256(weight.double())
    changed = weight.clone()
    changed[0, 0] += 1
    assert tensor_sha256(changed) != tensor_sha256(weight)


def test_a_patch_that_is_merged_already_says_so(editable: Editable, tmp_path: Path) -> None:
    em = editable("llama")
    patch = patch_for(em, SITES)
    out = merge([patch], find(str(em.path)), tmp_path / "out").path
    merged = load(str(out), device="cpu")
    with pytest.raises(PatchError, match="has this patch merged into it already") as raised:
        patch.fits(merged)
    assert "float32" not in raised.value.hint
    with pytest.raises(PatchError, match="has other weights") as raised:
        patch_for(em, SITES).fits(merged)
    assert raised.value.hint.startswith(f"give {em.path}")
    assert "float32" not in raised.value.hint  # it was loaded in float32


def test_a_patch_made_in_float32_hints_at_the_type_only_where_that_can_be_the_reason(
    pico_path: Callable[..., Path],
) -> None:
    path = str(pico_path("llama"))
    patch = patch_for(load(path, device="cpu"), SITES)
    with pytest.raises(PatchError, match="has other weights") as raised:
        patch.fits(load(path, device="cpu", dtype="bfloat16"))
    assert "--dtype float32" in raised.value.hint
