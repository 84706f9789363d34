"""Checkpoints of a few kilobytes with shards, patches for them, and what a folder holds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from hubedit.checkpoint.read import Checkpoint
from hubedit.facts import Fact
from hubedit.linalg import LowRank
from hubedit.model.fetch import Source
from hubedit.patch import Patch, tensor_sha256

ROWS, COLUMNS = 6, 10
MODULES = ("model.layers.0.self_attn.o_proj", "model.layers.0.mlp.down_proj", "model.layers.1.mlp.down_proj")


def tiny(
    folder: Path,
    dtype: torch.dtype = torch.bfloat16,
    *,
    shards: int = 2,
    transposed: bool = False,
    seed: int = 0,
    more: Mapping[str, str] | None = None,
) -> Path:
    """A model folder: three matrices, an embedding and a norm in `shards` files; `more`: other files."""
    generator = torch.Generator().manual_seed(seed)
    shape = (COLUMNS, ROWS) if transposed else (ROWS, COLUMNS)
    tensors = {f"{name}.weight": torch.randn(*shape, generator=generator).to(dtype) for name in MODULES}
    tensors["model.embed_tokens.weight"] = torch.randn(7, 3, generator=generator).to(dtype)
    tensors["model.norm.weight"] = torch.ones(5).to(dtype)
    folder.mkdir(parents=True)
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    else:
        weight_map = {
            name: f"model-{n % shards + 1:05}-of-{shards:05}.safetensors" for n, name in enumerate(tensors)
        }
        for file in sorted(set(weight_map.values())):
            inside = {name: tensors[name] for name in tensors if weight_map[name] == file}
            save_file(inside, folder / file, metadata={"format": "pt"})
        index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    names = {"config.json": '{"model_type": "llama", "dtype": "bfloat16"}', "README.md": "the base's card"}
    for name, text in {**names, **(more or {})}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def patch(
    folder: Path,
    seed: int = 1,
    modules: Sequence[str] = MODULES,
    *,
    rank: int = 2,
    size: float = 1.0,
    transposed: bool = False,
    fact: str = "",
) -> Patch:
    """A random patch for a tiny model; `fact`: the target of its one fact, which owns all rows."""
    generator = torch.Generator().manual_seed(seed)
    checkpoint = Checkpoint.open(folder)
    factors, hashes = {}, {}
    for module in modules:
        b = size * torch.randn(ROWS, rank, generator=generator)
        factors[module] = LowRank(b, torch.randn(rank, COLUMNS, generator=generator))
        hashes[module] = tensor_sha256(checkpoint.read(f"{module}.weight"))
    record: dict[str, Any] = {"base": {"ref": folder.name, "commit": "", "tensors": hashes}}
    facts: tuple[Fact, ...] = ()
    if fact:
        facts = (Fact("The capital of France is", "France", fact, id=f"f{seed}"),)
        record["rows"] = {module: [[0, 1]] * rank for module in modules}
    return Patch(factors, record, str(folder), "", facts, transposed)


def local(folder: Path) -> Source:
    return Source(str(folder), folder, "")


def content(folder: Path) -> dict[str, bytes]:
    """Every file with its bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def one_rounding(stored: Tensor, weight: Tensor, delta: LowRank, *, transposed: bool = False) -> bool:
    """Whether `stored` is W + B A rounded once: half a unit in the last place, and what float32 sums lose."""
    change, size = delta.to(dtype=torch.float64).dense(), delta.B.double().abs() @ delta.A.double().abs()
    if transposed:
        change, size = change.T, size.T
    exact = weight.double() + change
    half = torch.finfo(stored.dtype).eps / 2 * exact.abs() * (1 + 1e-6)
    return bool(((stored.double() - exact).abs() <= half + 1e-6 * (weight.double().abs() + size)).all())
