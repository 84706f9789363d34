"""Whether a patch fits a model: names, shapes and the hashes of its weights, without loading it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from hubedit.checkpoint.delta import FLOATS
from hubedit.checkpoint.read import Checkpoint
from hubedit.checkpoint.stack import oriented
from hubedit.errors import CheckpointError
from hubedit.model.fetch import Source
from hubedit.patch import Patch, tensor_sha256

_NARROW = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Fit:
    """`problems`: why the patch cannot or must not be used with the model, one line each; `unverified`:
    modules whose base weights the patch does not know, so that only name and shape were checked."""

    model: str
    commit: str
    problems: tuple[str, ...]
    unverified: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.problems


def fit(patch: Patch, model: Source) -> Fit:
    """Compares every module of the patch with the model's weights. Raises CheckpointError for a model
    that cannot be read."""
    checkpoint = Checkpoint.open(model.folder)
    base = patch.record.get("base")
    base = base if isinstance(base, Mapping) else {}
    problems: list[str] = []
    family = checkpoint.config.get("model_type")
    if base.get("family") and family != base["family"]:
        problems.append(f"the model is a {family}, the patch was made for a {base['family']}")
    hashes = base.get("tensors")
    hashes = hashes if isinstance(hashes, Mapping) else {}
    narrow = _NARROW.get(str(base.get("dtype")))
    unverified: list[str] = []
    patch = oriented(checkpoint, patch)
    for module, factor in patch.factors.items():
        try:
            name = checkpoint.module_tensor(module, factor.shape, patch.fan_in_fan_out)
        except CheckpointError as error:
            problems.append(error.message)
            continue
        if checkpoint.entry(name).dtype not in FLOATS:
            problems.append(f"{name} is stored as {checkpoint.entry(name).dtype}, which takes no change")
        elif module not in hashes:
            unverified.append(module)
        elif not _is_base(checkpoint, name, str(hashes[module]), narrow):
            problems.append(f"{module} has other weights than those the patch was made for")
    return Fit(model.ref, model.commit, tuple(problems), tuple(unverified))


def _is_base(checkpoint: Checkpoint, name: str, wanted: str, narrow: torch.dtype | None) -> bool:
    weight = checkpoint.read(name)
    if tensor_sha256(weight) == wanted:
        return True
    # the patch was made on the model in a narrower type than it is stored in
    return narrow is not None and tensor_sha256(weight.to(narrow)) == wanted
