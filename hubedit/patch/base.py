"""Which model a patch belongs to: the sha256 of every base tensor it touches.

`Claim` is the one place that says whether weights are those a patch was made for; a loaded model, a
checkpoint on disk, a stack of patches and another patch's record are all judged by it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from hubedit.errors import PatchError
from hubedit.model.sites import Site
from hubedit.patch import adapter
from hubedit.patch.names import dimensions

if TYPE_CHECKING:
    from torch import Tensor

    from hubedit.model.editable import EditableModel

Verdict = Literal["same", "other", "unverified", "unsaid"]


@dataclass(frozen=True)
class Claim:
    """What a patch's record says of its base's weights.

    `hashes`: module -> `tensor_sha256` of its weight; `dtype`: what the model was loaded in, to which the
    hashes may be rounded; `unverified`: modules that only foreign adapters touch, so that nobody knows their
    weights; `foreign`: the whole patch is such an adapter.
    """

    hashes: Mapping[str, str]
    dtype: str
    unverified: frozenset[str]
    foreign: bool

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Claim:
        """Of a patch's hubedit.json, whatever it holds."""
        base = record.get("base")
        base = base if isinstance(base, Mapping) else {}
        hashes, unknown = base.get("tensors"), base.get("unverified")
        return cls(
            {m: h for m, h in hashes.items() if isinstance(h, str)} if isinstance(hashes, Mapping) else {},
            str(base.get("dtype") or ""),
            frozenset(str(m) for m in unknown) if isinstance(unknown, list) else frozenset(),
            "foreign" in record,
        )

    def judge(self, module: str, known: Collection[str | None]) -> Verdict:
        """Whether a weight is the one that the patch was made for.

        `known`: hashes of the weight that is there, in every form that the patch may have met it in.
        "unverified": the patch need not say. "unsaid": it ought to, and does not.
        """
        if module not in self.hashes:
            return "unverified" if self.foreign or module in self.unverified else "unsaid"
        return "same" if self.hashes[module] in known else "other"


def unsaid(module: str) -> PatchError:
    """The error for a patch that ought to know a weight's hash."""
    return PatchError(f"the patch does not say which base weights {module} had", "make it again")


def not_the_base(model: str, module: str, hint: str) -> PatchError:
    """The error for weights that are others."""
    return PatchError(f"{model} is not the model this patch was made for: {module} has other weights", hint)


def tensor_sha256(weight: Tensor) -> str:
    """sha256 (hex) of a weight's bytes in the narrowest of bfloat16, float16, float32 that holds it exactly.

    So it does not depend on a wider type that the model was loaded or stored in. It is the hash of the stored
    bytes only where no narrower type would do.
    """
    import torch

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


def map_sites(
    shapes: Mapping[str, tuple[int, int]], em: EditableModel, made_for: str = ""
) -> dict[str, Site]:
    """Module path -> site of the model. `shapes`: (d_out, d_in) of each change.

    `made_for`: how the patch calls its base, "" where it does not. Raises PatchError where a module or its
    shape is not there.
    """
    known = {em.module_name(site): site for site in em.sites()}
    hint = f"the patch was made for {made_for or 'another model'}"
    for module, wanted in shapes.items():
        if module not in known:
            raise PatchError(f"{em.ref} has no editable module {module}", hint)
        shape = tuple(em.weight(known[module]).shape)
        if shape != wanted:
            raise PatchError(
                f"{module} is {dimensions(shape)} in {em.ref}, but {dimensions(wanted)} in the patch", hint
            )
    return {module: known[module] for module in shapes}


def check_base(
    sites: Mapping[str, Site], claim: Claim, em: EditableModel, patch_id: str, made_for: str
) -> None:
    """Raises PatchError naming the first module whose base weights are not those the patch was made for.

    `patch_id`: its first 12 digits, by which merged models call it; `made_for`: how the patch calls its base,
    "" where it does not.
    """
    for module, site in sites.items():
        verdict = claim.judge(module, {_hash(em, site)} if module in claim.hashes else ())
        if verdict == "unsaid" or (verdict == "unverified" and claim.foreign):
            raise unsaid(module)
        if verdict == "other":
            if patch_id in _merged_into(em):
                raise PatchError(
                    f"{em.ref} has this patch merged into it already",
                    "use the model without the patch, or its base with the patch",
                )
            hint = f"give {made_for or 'the base model named in hubedit.json'}"
            if claim.dtype == "float32" and str(em.dtype) != "torch.float32":
                hint += "; if this is it, add --dtype float32, in which the patch was made"
            raise not_the_base(em.ref, module, hint)


def _merged_into(em: EditableModel) -> set[str]:
    """Ids of the patches that a merged model's record lists."""
    try:
        lineage = adapter.read_json(em.path / "hubedit.json").get("lineage")
    except PatchError:
        return set()
    entries = lineage if isinstance(lineage, list) else []
    return {str(entry.get("id")) for entry in entries if isinstance(entry, Mapping)}


def _hash(em: EditableModel, site: Site) -> str:
    import torch

    weight = em.site(site).weight  # as the checkpoint stores it, also for Conv1D
    assert isinstance(weight, torch.Tensor)
    return tensor_sha256(weight)
