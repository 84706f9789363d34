"""A patch's name for itself: the same change has the same id, wherever it lies."""

from __future__ import annotations

import hashlib

from hubedit.patch.base import tensor_sha256
from hubedit.patch.value import Patch


def patch_id(patch: Patch) -> str:
    """sha256 (hex) over each module's name, rank and factors. Facts, record and base do not count."""
    total = hashlib.sha256()
    for module, factor in patch.factors.items():
        total.update(f"{module} {factor.rank} {factor.shape}\n".encode())
        for half in (factor.B, factor.A):
            total.update(f"{tensor_sha256(half)}\n".encode())
    return total.hexdigest()
