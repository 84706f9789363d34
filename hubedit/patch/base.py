"""Which model a patch belongs to: the sha256 of every base tensor it touches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hubedit.errors import PatchError
from hubedit.linalg import LowRank
from hubedit.model.sites import Site

if TYPE_CHECKING:
    from hubedit.model.editable import EditableModel


def tensor_sha256(weight: Tensor) -> str:
    """sha256 (hex) of a weight's bytes in the narrowest of bfloat16, float16, float32 that holds it exactly.

    So the hash is that of the checkpoint's own bytes, whatever wider type the model was loaded in.
    """
    exact = weight.detach().cpu().contiguous()
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        narrow = exact.to(dtype)
        if torch.equal(narrow.to(exact.dtype), exact):
            exact = narrow
            break
    return hashlib.sha256(exact.flatten().view(torch.uint8).numpy().data).hexdigest()


def base_record(em: EditableModel, sites: Iterable[Site]) -> dict[str, Any]:
    """What hubedit.json says about the base: where it came from, and the hash of each touched tensor."""
    return {
        "ref": em.ref,
        "commit": em.commit,
        "identity": em.identity,
        "family": em.family.name,
        "dtype": str(em.dtype).removeprefix("torch."),
        "tensors": {em.module_name(site): _hash(em, site) for site in sorted(sites)},
    }


def map_sites(factors: Mapping[str, LowRank], em: EditableModel) -> dict[str, Site]:
    """Module path -> site of the model. Raises PatchError where a module or its shape is not there."""
    known = {em.module_name(site): site for site in em.sites()}
    for module, factor in factors.items():
        if module not in known:
            raise PatchError(
                f"{em.ref} has no editable module {module}", "the patch was made for another model"
            )
        shape = tuple(em.weight(known[module]).shape)
        if shape != factor.shape:
            raise PatchError(
                f"{module} is {_by(shape)} in {em.ref}, but {_by(factor.shape)} in the patch",
                "the patch was made for another model",
            )
    return {module: known[module] for module in factors}


def check_base(sites: Mapping[str, Site], hashes: Mapping[str, Any], commit: str, em: EditableModel) -> None:
    """Raises PatchError naming the first module whose base weights are not those the patch was made for."""
    if commit and commit == em.commit:
        # one commit, one content; the bytes differ only where the model was loaded in a narrower type
        return
    for module, site in sites.items():
        if module not in hashes:
            raise PatchError(f"the patch does not say which base weights {module} had", "make it again")
        if hashes[module] != _hash(em, site):
            raise PatchError(
                f"{em.ref} is not the model this patch was made for: {module} has other weights",
                "give the base model named in hubedit.json; a float32 base needs --dtype float32",
            )


def _hash(em: EditableModel, site: Site) -> str:
    weight = em.site(site).weight  # as the checkpoint stores it, also for Conv1D
    assert isinstance(weight, Tensor)
    return tensor_sha256(weight)


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
