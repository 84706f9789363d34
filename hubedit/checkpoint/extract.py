"""A patch from any edited checkpoint: the leading directions of every linear weight's difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch

import hubedit
from hubedit.checkpoint.delta import FLOATS
from hubedit.checkpoint.difference import Size, difference, matrix_shape, same_bytes, size
from hubedit.checkpoint.read import Checkpoint
from hubedit.errors import CheckpointError, ConfigError
from hubedit.linalg import LowRank
from hubedit.linalg.sketch import WIDTHS, Sketch, sketch
from hubedit.model.families import Family, family_of
from hubedit.model.fetch import Source, identity
from hubedit.model.tensor_names import is_buffer, is_embeddings, is_head, same_part
from hubedit.patch import Patch, tensor_sha256
from hubedit.patch.names import dimensions
from hubedit.progress import Progress, Silent

ENERGY = 0.999
"""Share of a difference's energy that a patch keeps where no rank was given."""

MOST_RANK = 512
"""The largest rank that vLLM takes; the default never exceeds it."""

_PARTIAL = "a LoRA adapter cannot hold these; add --partial to leave them out, and the patch then differs"
_OTHERS = "give two models of one architecture"
_SHOWN = 3


@dataclass(frozen=True)
class Extracted:
    """`energy`: module -> share (0..1) of |edited - base|^2 that the patch holds; `left_out`: tensors that
    differ and that it does not hold, with their |edited - base|, None where the vocabularies differ in
    size; `beyond`: modules whose remaining directions are no larger than the rounding of the stored
    weights; `notes`: what to know of the two checkpoints, one line each."""

    patch: Patch
    energy: Mapping[str, float]
    left_out: Mapping[str, float | None]
    beyond: tuple[str, ...]
    notes: tuple[str, ...] = ()


def extract(
    base: Source,
    edited: Source,
    *,
    rank: int = 0,
    partial: bool = False,
    progress: Progress | None = None,
) -> Extracted:
    """The patch that turns `base` into `edited`, one tensor in memory at a time.

    `rank`: of every module; 0 takes for each the smallest that keeps 99.9 % of the difference's energy,
    at most 512, and no directions that are as small as the rounding of the stored weights. `partial`:
    leave out what a LoRA adapter cannot hold (norms, biases, embeddings, tables of vocabularies that
    differ in size) instead of refusing.
    Raises CheckpointError for checkpoints of different architectures or without a difference, ModelError
    for families that hubedit does not know, ConfigError.
    """
    if rank < 0:
        raise ConfigError(f"rank is {rank}", "0 takes as many directions as the difference has")
    progress = progress or Silent()
    old = Checkpoint.open(base.folder)
    new = Checkpoint.open(edited.folder).named_as(old)
    family = _family(old, new)
    head = _head(old, new, family)
    names, resized = _comparable(old, new)
    progress.start("comparing", len(names), "tensors")
    differing: dict[str, Size] = {}
    for name in names:
        one, two = old.tensors[name], new.tensors[name]
        if not same_bytes(one, two) and (found := _size(old, new, name)).norm > 0:
            differing[name] = found
        progress.advance()
    progress.finish(f"{len(differing)} differ")
    modules = {name: _module(name, old, family) for name in differing}
    left_out: dict[str, float | None] = {
        name: differing[name].norm for name, module in modules.items() if module is None
    }
    left_out |= head | dict.fromkeys(resized)
    sites = {name: module for name, module in modules.items() if module is not None}
    if not differing and not left_out:
        raise CheckpointError("the two models have equal weights", "there is nothing to make a patch of")
    if left_out and not partial:
        raise CheckpointError(
            f"{len(left_out)} changed tensors are no linear weights: {_some(sorted(left_out))}"
            + _sizes(old, new, resized),
            _PARTIAL,
        )
    if not sites:
        raise CheckpointError("no linear weight differs", "there is nothing that a LoRA adapter can hold")
    progress.start("decomposing", len(sites), "tensors")
    made: dict[str, _Site] = {}
    for name, module in sites.items():
        made[module] = _decompose(old, new, name, differing[name], rank, family.conv1d)
        progress.advance()
    progress.finish(f"rank {max(site.factor.rank for site in made.values())}")
    patch = _patch(base, edited, old, family, made, left_out, rank)
    return Extracted(
        patch,
        {module: site.energy for module, site in made.items()},
        left_out,
        tuple(module for module, site in made.items() if site.beyond),
        (*old.notes, *new.notes),
    )


@dataclass(frozen=True)
class _Site:
    """`beyond`: directions were left out because they are as small as rounding; `base`: sha256."""

    factor: LowRank
    energy: float
    beyond: bool
    base: str


def _decompose(
    old: Checkpoint, new: Checkpoint, name: str, measured: Size, rank: int, transposed: bool
) -> _Site:
    """The leading directions of one tensor's difference, in the module's orientation."""
    one, two = old.tensors[name], new.tensors[name]
    shape = matrix_shape(one)
    noise = measured.noise

    def enough(found: Sketch) -> bool:
        return found.kept(len(found.values)) >= ENERGY or found.above(noise) < len(found.values)

    found = sketch(difference(one, two), shape, enough, widths=(rank,) if rank else WIDTHS)
    wanted = count = min(rank or found.rank_for(ENERGY), rank or MOST_RANK, len(found.values))
    if not rank:
        count = max(1, min(wanted, found.above(noise)))
    # scaled alike, so that neither factor loses digits
    root = found.values[:count].sqrt()
    left, right = found.left[:, :count] * root, root[:, None] * found.right[:count]
    factor = LowRank(right.T.contiguous(), left.T.contiguous()) if transposed else LowRank(left, right)
    return _Site(
        factor.to(dtype=torch.float32), found.kept(count), count < wanted, tensor_sha256(old.read(name))
    )


def _family(old: Checkpoint, new: Checkpoint) -> Family:
    """The family of both. Raises ModelError for one that is not known, CheckpointError for two."""
    family = family_of(SimpleNamespace(**{str(k): v for k, v in old.config.items()}))
    other = new.config.get("model_type")
    if other != family.name:
        raise CheckpointError(f"the base is a {family.name}, the edited model is {other!r}")
    return family


def _head(old: Checkpoint, new: Checkpoint, family: Family) -> dict[str, float | None]:
    """A head that one model stores and the other takes from its embeddings: how far they are apart, None
    where their vocabularies differ in size.

    Empty where both or none store one, or where it is the copy of the embeddings beside it.
    """
    stored = (n for n in (*old.tensors, *new.tensors) if is_head(n.removesuffix(".weight")))
    name, source = next(stored, f"{family.head}.weight"), f"{family.embeddings}.weight"
    if (name in old.tensors) == (name in new.tensors):
        return {}
    holder, other = (old, new) if name in old.tensors else (new, old)
    source = next((s for s in (source, source.partition(".")[2]) if s in other.tensors), "")
    if not source or not other.tied:
        return {}  # the other lacks a head, which is refused by name
    own = holder.tensors.get(source)
    head, shared = holder.tensors[name], other.tensors[source]
    if (own is not None and same_bytes(head, own)) or same_bytes(head, shared):
        return {}
    if head.shape != shared.shape:
        if head.shape[1:] == shared.shape[1:]:
            return {name: None}
        raise CheckpointError(
            f"{name} is {dimensions(head.shape)}, the other model's embeddings {dimensions(shared.shape)}",
            _OTHERS,
        )
    for checkpoint, entry in ((holder, head), (other, shared)):
        if entry.dtype not in FLOATS:
            raise CheckpointError(f"{entry.name} of {checkpoint.folder} is stored as {entry.dtype}")
    norm = (size(head, shared) if holder is old else size(shared, head)).norm
    return {name: norm} if norm > 0 else {}


def _comparable(old: Checkpoint, new: Checkpoint) -> tuple[list[str], list[str]]:
    """The tensors of both that can be compared, and those of vocabularies that differ in size.

    Raises CheckpointError where one model has a weight that the other lacks, or another one of other shape.
    """
    for mine, theirs, which in ((old, new, "base"), (new, old, "edited model")):
        alone = [n for n in sorted(mine.tensors) if n not in theirs.tensors and not is_buffer(n)]
        if theirs.tied:  # its embeddings are the head: see _head
            alone = [n for n in alone if not is_head(n.removesuffix(".weight"))]
        if alone:
            raise CheckpointError(f"only the {which} has {_some(alone)}", _OTHERS)
    shared = [n for n in sorted(old.tensors) if n in new.tensors and not is_buffer(n)]
    resized = [n for n in shared if old.tensors[n].shape != new.tensors[n].shape]
    for name in resized:
        one, two = old.tensors[name].shape, new.tensors[name].shape
        module = name.rpartition(".")[0]
        if not (is_head(module) or is_embeddings(module)) or one[1:] != two[1:]:
            raise CheckpointError(f"{name}{_shapes(one, two)}", _OTHERS)
    return [n for n in shared if n not in resized], resized


def _sizes(old: Checkpoint, new: Checkpoint, resized: Sequence[str]) -> str:
    """How the vocabularies differ, in brackets; "" where they do not."""
    if not resized:
        return ""
    name = resized[0]
    return f" ({name}{_shapes(old.tensors[name].shape, new.tensors[name].shape)})"


def _shapes(one: tuple[int, ...], two: tuple[int, ...]) -> str:
    return f" is {dimensions(one)} in the base, {dimensions(two)} in the edited model"


def _size(old: Checkpoint, new: Checkpoint, name: str) -> Size:
    for checkpoint in (old, new):
        if checkpoint.tensors[name].dtype not in FLOATS:
            raise CheckpointError(
                f"{name} of {checkpoint.folder} is stored as {checkpoint.tensors[name].dtype}",
                "give two checkpoints that are not quantised",
            )
    return size(old.tensors[name], new.tensors[name])


def _module(name: str, checkpoint: Checkpoint, family: Family) -> str | None:
    """The linear module whose weight a tensor is, as PEFT names it; None for any other tensor."""
    if not name.endswith(".weight") or len(checkpoint.tensors[name].shape) != 2:
        return None
    module = name.removesuffix(".weight")
    if is_head(module):
        # a tied head is the embeddings, which an adapter on it would not change; beside Conv1D blocks a
        # head is stored the other way round, and an adapter says only once how weights are stored
        return None if checkpoint.tied or family.conv1d else family.head
    # checkpoints leave roots out (GPT-2), or have them in another order (Gemma 3)
    own, blocks = same_part(module), same_part(f"{family.blocks}.")
    return f"{family.blocks}.{own.removeprefix(blocks)}" if own.startswith(blocks) else None


def _patch(
    base: Source,
    edited: Source,
    old: Checkpoint,
    family: Family,
    made: Mapping[str, _Site],
    left_out: Mapping[str, float | None],
    rank: int,
) -> Patch:
    record: dict[str, Any] = {
        "base": {
            "ref": base.ref if base.commit else base.folder.resolve().name,
            "commit": base.commit,
            "identity": identity(base),
            "family": family.name,
            "dtype": str(old.config.get("dtype") or old.config.get("torch_dtype") or ""),
            "tensors": {module: site.base for module, site in made.items()},
        },
        "extracted": {
            "from": {
                "ref": edited.ref if edited.commit else edited.folder.resolve().name,
                "commit": edited.commit,
            },
            "rank": rank or "auto",
            "energy": {module: site.energy for module, site in made.items()},
            "left_out": dict(left_out),
        },
        "packages": {"hubedit": hubedit.__version__, "torch": torch.__version__},
    }
    name = base.ref if base.commit else str(base.folder.resolve())
    factors = {module: site.factor for module, site in made.items()}
    return Patch(factors, record, name, base.commit, fan_in_fan_out=family.conv1d)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
