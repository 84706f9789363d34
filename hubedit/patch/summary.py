"""A patch in numbers: what `hubedit inspect` shows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hubedit.facts import Fact
from hubedit.patch import adapter
from hubedit.patch.foreign import load_any
from hubedit.patch.identity import patch_id
from hubedit.patch.pair import Pair
from hubedit.patch.same_base import is_foreign
from hubedit.patch.value import Patch

Origin = Literal["applied", "composed", "extracted", "foreign", "unknown"]

# what says how it was made, in the order it is shown
_PROVENANCE = (
    "created method order config command seed seeds packages device dtype platform seconds corpus statistics "
    "foreign extracted on_conflict cut_from"
).split()
_BLOCK = re.compile(r"\.(\d+)\.")
_ENERGY = 0.99


@dataclass(frozen=True)
class ModuleSummary:
    """One module's change. `layer`: the number in its path, None without one; `relative`: |dW| / |W|
    where the patch knows |W|; `effective_rank`: directions that carry 99 % of its energy; `energy`: what
    truncation kept of it, 1.0 without."""

    module: str
    layer: int | None
    shape: tuple[int, int]
    rank: int
    effective_rank: int
    norm: float
    relative: float | None
    energy: float


@dataclass(frozen=True)
class Summary:
    """`rank`, `size`: of the adapter on disk, in bytes; `facts_count` counts also facts that were left out
    of it; `alpha`: attention's share by layer; `metrics`: of report.json, else of the record."""

    path: Path
    id: str
    origin: Origin
    base: str
    commit: str
    family: str
    facts: tuple[Fact, ...]
    facts_count: int
    layers: tuple[int, ...]
    alpha: Mapping[str, float]
    rank: int
    size: int
    modules: tuple[ModuleSummary, ...]
    metrics: Mapping[str, Any]
    provenance: Mapping[str, Any]
    composed_of: tuple[Mapping[str, Any], ...]


def summarise(path: Path) -> tuple[Summary, Patch]:
    """Reads a patch or a foreign adapter. Raises PatchError."""
    patch = load_any(path)
    record = patch.record
    report = adapter.read_json(path / "report.json") if (path / "report.json").is_file() else {}
    base = _table(record.get("base"))
    modules = tuple(_module(name, pair, record) for name, pair in patch.pairs.items())
    count = _table(record.get("facts")).get("count")
    parts = record.get("composed_of")
    return Summary(
        path,
        patch_id(patch),
        origin(patch),
        patch.base,
        patch.commit,
        str(base.get("family") or ""),
        patch.facts,
        len(patch.facts) or (count if isinstance(count, int) else 0),
        tuple(sorted({m.layer for m in modules if m.layer is not None})),
        _shares(record.get("alpha")),
        patch.rank,
        patch.size,
        modules,
        _table(report.get("metrics")) or _table(record.get("metrics")),
        {key: record[key] for key in _PROVENANCE if key in record},
        tuple(_table(part) for part in parts) if isinstance(parts, list) else (),
    ), patch


def origin(patch: Patch) -> Origin:
    """How the patch came to be."""
    if is_foreign(patch):
        return "foreign"
    keys: tuple[tuple[str, Origin], ...] = (
        ("composed_of", "composed"),
        ("extracted", "extracted"),
        ("method", "applied"),
    )
    return next((name for key, name in keys if key in patch.record), "unknown")


def _module(name: str, pair: Pair, record: Mapping[str, Any]) -> ModuleSummary:
    energy = 1.0
    for key in ("truncation", "extracted"):
        kept = _table(_table(record.get(key)).get("energy")).get(name)
        if (share := _number(kept)) is not None:
            energy *= share
    weight = _number(_table(_table(record.get("sites")).get(name)).get("weight_norm"))
    found = _BLOCK.search(name)
    norm = pair.norm()
    return ModuleSummary(
        name,
        int(found[1]) if found and len(found[1]) < 9 else None,
        pair.shape,
        pair.rank,
        _effective(pair),
        norm,
        norm / weight if weight is not None and weight > 0 else None,
        energy,
    )


def _effective(pair: Pair) -> int:
    if not pair.rank:
        return 0
    squares = pair.singular_values() ** 2
    if not float(squares.sum()) > 0:
        return 0
    return int((squares.cumsum() < _ENERGY * squares.sum()).sum()) + 1


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _shares(alpha: Any) -> dict[str, float]:
    found = {str(layer): _number(share) for layer, share in _table(alpha).items()}
    return {layer: share for layer, share in found.items() if share is not None}


def _number(value: Any) -> float | None:
    """Records may hold anything; JSON as Python reads it also integers beyond every float."""
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300
    return float(value) if good else None
