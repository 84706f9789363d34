"""Small edits of the bundled model whose factors must stay what they are when code moves.

    python -m tests.edit.golden          the sha256 of every case's factors, to compare before and after
    python -m tests.edit.golden write    and `golden.json` anew, after a change of the mathematics

Bits differ between processors and releases of torch, so what stands in `golden.json` and is tested everywhere
is a sketch of every factor: its norm, and its bilinear form on fixed vectors.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from hubedit.cache import Cache
from hubedit.config import EditConfig, TraceConfig
from hubedit.demo import facts_path, model_path
from hubedit.edit.compute import compute
from hubedit.facts import Fact, load_facts
from hubedit.linalg import LowRank
from hubedit.model.editable import EditableModel
from hubedit.model.load import load
from hubedit.pipeline import edit_facts
from hubedit.presets import METHODS, method_defaults

STORED = Path(__file__).with_name("golden.json")
FACTS = 4
BATCHES = ("joint", "memit", "alphaedit")

Factors = Mapping[str, LowRank]


def demo() -> tuple[EditableModel, tuple[Fact, ...]]:
    """The bundled model, and the facts to edit."""
    return load(str(model_path()), device="cpu"), tuple(load_facts(facts_path()).facts)[:FACTS]


def settings(method: str, **more: Any) -> EditConfig:
    """A method's own settings with few steps, little text and a short trace; a collapse is only told."""
    config = method_defaults(method)
    targets = replace(config.targets, steps=3, contexts=min(config.targets.contexts, 2), rounds=1)
    short: dict[str, Any] = {
        "stats": replace(config.stats, tokens=1500),
        "trace": TraceConfig(samples=4, max_facts=FACTS),
        "collapse": "tell",
        "targets": targets,
    }
    return replace(config, **(short | more))


def cases(em: EditableModel, facts: tuple[Fact, ...]) -> Iterator[tuple[str, Factors]]:
    """Name and factors, by module, of every case."""
    with TemporaryDirectory() as folder:
        cache = Cache(Path(folder) / "cache")

        def edited(config: EditConfig) -> Factors:
            found = compute(em, facts, config, cache=cache).factors
            return {em.module_name(site): factor for site, factor in found.items()}

        for method in METHODS:
            yield method, edited(settings(method))
        yield "joint, alpha 0.3", edited(settings("joint", alpha="0.3"))
        yield "joint, traced", edited(settings("joint", alpha="auto"))
        yield "intattn, alpha 0.3", edited(settings("intattn", alpha="0.3"))
        for method in BATCHES:
            yield f"{method}, batches", edited(settings(method, batch_size=FACTS // 2))
        config = settings("joint", alpha="0.3")
        first = edit_facts(em, facts[:2], config, cache=cache).patch
        yield "joint, on a patch", edit_facts(em, facts[2:], config, on=first, cache=cache).patch.factors


def sketch(factor: LowRank) -> list[float]:
    """|dW|, and u^T dW v / |dW| for u_i = cos(i + 1), v_j = sin(s (j + 1)) with s = 1 and 2."""
    dense = factor.dense().double()
    norm = float(dense.norm())
    rows, columns = (torch.arange(1, n + 1, dtype=torch.float64) for n in dense.shape)
    return [norm, *(float(rows.cos() @ dense @ (s * columns).sin()) / norm for s in (1, 2))]


def sha256(factors: Factors) -> str:
    """Over every module's name and the bytes of its factors."""
    total = hashlib.sha256()

    def add(tensor: Tensor) -> None:
        total.update(f"{tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.contiguous().numpy().tobytes())

    for module, factor in sorted(factors.items()):
        total.update(f"{module}\n".encode())
        add(factor.B)
        add(factor.A)
    return total.hexdigest()


def main(write: bool) -> None:
    torch.set_num_threads(1)
    sketches: dict[str, dict[str, list[float]]] = {}
    for name, factors in cases(*demo()):
        sys.stdout.write(f"{sha256(factors)}  {name}\n")
        sketches[name] = {module: sketch(factor) for module, factor in sorted(factors.items())}
    if write:
        lines = (f"  {json.dumps(name)}: {json.dumps(sketches[name])}" for name in sketches)
        STORED.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main("write" in sys.argv[1:])
