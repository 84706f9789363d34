"""Patches with the hashes of their base, as `apply` writes them; plainer ones are in `parts.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from hubedit.facts import Fact
from hubedit.linalg import LowRank
from hubedit.patch import Patch
from tests.patch.parts import DOWN, OUT

HASHES = {DOWN: "d" * 64, OUT: "e" * 64}
WIDTH = 24


def fact(name: str, target: str = "x", **more: Any) -> Fact:
    return Fact(f"The capital of {name} is", name, target, **more)


def recorded(
    ranks: tuple[int, int] = (2, 2),
    seed: int = 0,
    facts: Sequence[Fact] = (),
    base: dict[str, Any] | None = None,
    commit: str = "",
    **record: Any,
) -> Patch:
    """A patch of two modules (rank 0: without one); `facts` and `method` make it what `apply` writes."""
    g = torch.Generator().manual_seed(seed)
    factors = {
        name: LowRank(torch.randn(6, rank, generator=g), torch.randn(rank, WIDTH, generator=g))
        for name, rank in zip((DOWN, OUT), ranks, strict=True)
        if rank
    }
    kept = {"tensors": {m: HASHES[m] for m in factors}, "identity": "i" * 64, "family": "llama"}
    return Patch(
        factors, {"base": kept if base is None else base, **record}, "owner/base", commit, tuple(facts)
    )


def edited(names: Sequence[tuple[str, str]], seed: int, **record: Any) -> Patch:
    facts = [fact(name, target) for name, target in names]
    return recorded((len(facts), len(facts)), seed, facts, **{"method": "joint", **record})
