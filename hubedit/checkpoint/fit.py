"""Whether a patch fits a model: names, shapes and the hashes of its weights, without loading it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hubedit.checkpoint.delta import FLOATS
from hubedit.checkpoint.digest import digest
from hubedit.checkpoint.read import Checkpoint
from hubedit.checkpoint.stack import oriented
from hubedit.errors import CheckpointError
from hubedit.model.fetch import Source
from hubedit.patch import Patch
from hubedit.patch.base import Claim
from hubedit.weights.blocks import side_by_side
from hubedit.weights.header import TensorEntry


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
    claim = Claim.of(patch.record)
    patch = oriented(checkpoint, patch)
    there: dict[str, TensorEntry] = {}
    for module, pair in patch.pairs.items():
        try:
            entry = checkpoint.entry(checkpoint.module_tensor(module, pair.shape, patch.fan_in_fan_out))
        except CheckpointError as error:
            problems.append(error.message)
            continue
        if entry.dtype not in FLOATS:
            problems.append(f"{entry.name} is stored as {entry.dtype}, which takes no change")
        else:
            there[module] = entry
    asked = [module for module in there if module in claim.hashes]
    found = dict(zip(asked, side_by_side(digest, (there[m] for m in asked)), strict=True))
    verdicts = {m: claim.judge(m, found[m].known(claim.dtype) if m in found else ()) for m in there}
    others = [module for module, verdict in verdicts.items() if verdict == "other"]
    problems += [f"{module} has other weights than those the patch was made for" for module in others]
    unverified = [module for module, verdict in verdicts.items() if verdict in ("unverified", "unsaid")]
    return Fit(model.ref, model.commit, tuple(problems), tuple(unverified))
