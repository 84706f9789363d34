"""A patch of two modules without a model, and what a folder holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from hubedit.facts import Fact, Probe
from hubedit.linalg import LowRank
from hubedit.patch import Patch

FACTS = (
    Fact("The capital of France is", "France", "Lyon", id="a", ground_truth=("Paris",)),
    Fact("東京は", "東京", "日本の首都\u2028です", id="b", locality=(Probe("京都は", ("古い",), "same"),)),
)
DOWN, OUT = "model.layers.1.mlp.down_proj", "model.layers.0.self_attn.o_proj"


def made(ranks: tuple[int, int] = (3, 5), seed: int = 0, **more: Any) -> Patch:
    g = torch.Generator().manual_seed(seed)
    factors = {
        name: LowRank(torch.randn(6, rank, generator=g), torch.randn(rank, 7, generator=g))
        for name, rank in zip((DOWN, OUT), ranks, strict=True)
    }
    return Patch(factors, {"seed": seed}, "owner/base", "c" * 40, **{"facts": FACTS, **more})


def content(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}
