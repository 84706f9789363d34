"""What differs between two checkpoints, tensor by tensor, or between two patches, module by module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from hubedit.checkpoint.difference import difference, matrix_shape, readable, same_bytes, size
from hubedit.checkpoint.read import Checkpoint
from hubedit.errors import ConfigError
from hubedit.linalg import LowRank
from hubedit.linalg.sketch import WIDTHS, sketch
from hubedit.patch import Patch
from hubedit.progress import Progress, Silent
from hubedit.weights.header import TensorEntry

MOST_RANK = 512
_ROWS = 1 << 22
# factors are float32, so their products are known to about this much
_EQUAL = 1e-6


@dataclass(frozen=True)
class Changed:
    """One tensor or module that differs. `shapes`, `dtypes`: in A and in B.

    `norm`: |B - A| (Frobenius); `relative`: |B - A| / |A|, None where A is zero; `largest`: of one entry;
    `rank`: the directions of the difference that stand out from the rounding of what is stored, None
    where it was not asked for or is no matrix; `capped`: the rank is at least that. Where shapes differ,
    or the numbers cannot be read, nothing is measured.
    """

    name: str
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    dtypes: tuple[str, str]
    norm: float | None = None
    relative: float | None = None
    largest: float | None = None
    rank: int | None = None
    capped: bool = False


@dataclass(frozen=True)
class Diff:
    """`only_a`, `only_b`: names in one of the two; `changed`: sorted by name; `identical`: how many are
    equal bit for bit; `facts`: prompts in one patch only, "A" and "B"; empty for checkpoints."""

    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    changed: tuple[Changed, ...]
    identical: int
    facts: Mapping[str, tuple[str, ...]]

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return not (self.only_a or self.only_b or self.changed or any(self.facts.values()))


def diff_checkpoints(
    a: Checkpoint, b: Checkpoint, *, most_rank: int = 128, progress: Progress | None = None
) -> Diff:
    """Compares two checkpoints, one tensor at a time; neither is loaded.

    Equal bytes are only compared, and shared files (hard links) not even read. `most_rank`: up to which
    the rank is estimated, at most 512; 0 leaves it out. Raises CheckpointError.
    """
    if not 0 <= most_rank <= MOST_RANK:
        raise ConfigError(f"the rank cannot be estimated up to {most_rank}", f"0 to {MOST_RANK}")
    progress, b = progress or Silent(), b.named_as(a)
    shared = sorted(set(a.tensors) & set(b.tensors))
    progress.start("comparing", len(shared), "tensors")
    changed: list[Changed] = []
    for name in shared:
        one, two = a.tensors[name], b.tensors[name]
        if not same_bytes(one, two):
            changed.append(_measure(one, two, most_rank))
        progress.advance()
    progress.finish(f"{len(changed)} of {len(shared)} differ")
    return Diff(
        tuple(sorted(set(a.tensors) - set(b.tensors))),
        tuple(sorted(set(b.tensors) - set(a.tensors))),
        tuple(changed),
        len(shared) - len(changed),
        {},
    )


def diff_patches(a: Patch, b: Patch) -> Diff:
    """Compares two patches by what they change; factors may differ and give the same change."""
    shared = sorted(set(a.factors) & set(b.factors))
    changed: list[Changed] = []
    for module in shared:
        one, two = a.factors[module], b.factors[module]
        if one.rank == two.rank and torch.equal(one.A, two.A) and torch.equal(one.B, two.B):
            continue
        found = _measure_factors(module, one, two)
        if found.norm is None or found.norm > 0:
            changed.append(found)
    asked = ({(f.prompt, f.target): None for f in patch.facts} for patch in (a, b))
    ours, theirs = asked
    facts = {
        "A": tuple(f"{prompt} {target}" for prompt, target in ours if (prompt, target) not in theirs),
        "B": tuple(f"{prompt} {target}" for prompt, target in theirs if (prompt, target) not in ours),
    }
    return Diff(
        tuple(sorted(set(a.factors) - set(b.factors))),
        tuple(sorted(set(b.factors) - set(a.factors))),
        tuple(changed),
        len(shared) - len(changed),
        facts,
    )


def _measure(one: TensorEntry, two: TensorEntry, most_rank: int) -> Changed:
    found = Changed(one.name, (one.shape, two.shape), (one.dtype, two.dtype))
    if one.shape != two.shape or not readable(one) or not readable(two):
        return found
    measured = size(one, two)
    rank: int | None = None
    if measured.norm == 0:
        rank = 0  # the same numbers in another dtype, or zeros of another sign
    elif most_rank and len(one.shape) == 2:
        noise = measured.noise
        shape = matrix_shape(one)
        widths = [*(width for width in WIDTHS if width < most_rank), most_rank]
        directions = sketch(
            difference(one, two), shape, lambda s: s.above(noise) < len(s.values), widths=widths, iterations=1
        )
        rank = directions.above(noise)
    return Changed(
        one.name,
        found.shapes,
        found.dtypes,
        measured.norm,
        measured.relative,
        measured.largest,
        rank if rank is None else min(rank, most_rank),
        rank is not None and 0 < most_rank <= rank < min(matrix_shape(one)),
    )


def _measure_factors(module: str, one: LowRank, two: LowRank) -> Changed:
    shapes, dtypes = (one.shape, two.shape), ("F32", "F32")
    if one.shape != two.shape:
        return Changed(module, shapes, dtypes)
    delta = two.to(dtype=torch.float64) + one.to(dtype=torch.float64) * -1.0
    values = delta.singular_values()
    norm, own = float(values.norm()), one.norm()
    if not norm > _EQUAL * max(own, two.norm()):
        norm = 0.0  # the factors differ, their product does not
    rank = int((values > _EQUAL * max(own, two.norm())).sum()) if norm else 0
    height = max(1, _ROWS // max(1, one.shape[1]))
    blocks = (delta.B[at : at + height] @ delta.A for at in range(0, one.shape[0], height))
    largest = max((float(block.abs().max()) for block in blocks), default=0.0)
    return Changed(module, shapes, dtypes, norm, norm / own if own else None, largest, rank)
