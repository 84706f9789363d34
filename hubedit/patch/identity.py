"""A patch's name for itself: the same change has the same id, wherever it lies."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from hubedit.floats import NAMES, Array, fits, narrowed, raw

if TYPE_CHECKING:
    from hubedit.patch.pair import Pair


class Paired(Protocol):
    """What has factors by module: a `Patch`."""

    @property
    def pairs(self) -> Mapping[str, Pair]:
        """Module path -> factors."""


def patch_id(patch: Paired) -> str:
    """sha256 (hex) over each module's name, rank and factors. Facts, record and base do not count."""
    total = hashlib.sha256()
    for module, pair in patch.pairs.items():
        total.update(f"{module} {pair.rank} {pair.shape}\n".encode())
        for half in (pair.B, pair.A):
            total.update(f"{array_sha256(half)}\n".encode())
    return total.hexdigest()


def array_sha256(values: Array) -> str:
    """`hubedit.patch.tensor_sha256` of float32 values."""
    kind = next((kind for kind in NAMES.values() if fits(values, kind)), "F32")
    return hashlib.sha256(raw(narrowed(values, kind))).hexdigest()
