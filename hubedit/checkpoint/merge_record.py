"""hubedit.json of a merged model: its base, the stack of patches, and what became of every touched tensor."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from hubedit.checkpoint.delta import FLOATS, Realised
from hubedit.checkpoint.read import read_json
from hubedit.errors import CheckpointError
from hubedit.patch import Patch

RECORD = "hubedit.json"
PATCHES = "patches"
ORIGINALS = "originals"
KIND = "merged"
SCHEMA = 1
KEPT_ENOUGH = 0.9
"""A merge warns where less than this share of a change's energy survives the rounding."""
_HINT = "the folder was changed or damaged; merge again from the base"
_HEX = re.compile("[0-9a-f]{64}")
Value = TypeVar("Value")


@dataclass(frozen=True)
class Touched:
    """One tensor that the stack changes, as the checkpoint names it.

    `module`: as adapters name it; `base_file`, `base_dtype`, `base_sha256`: where and what its bytes were
    in the base; `base_values`: what `hubedit.checkpoint.digest.Digest` says of its values there, empty for
    bfloat16; `dtype`, `sha256`: what they are now; `norm`, `kept`, `error`: of
    `hubedit.checkpoint.delta.Realised`.
    """

    module: str
    transposed: bool
    shape: tuple[int, int]
    base_file: str
    base_dtype: str
    base_sha256: str
    dtype: str = ""
    sha256: str = ""
    norm: float = 0.0
    kept: float = 1.0
    error: float = 0.0
    base_values: Mapping[str, str] = field(default_factory=dict)

    def became(self, found: Realised, dtype: str) -> Touched:
        """The same with what was written."""
        return replace(
            self, dtype=dtype, sha256=found.sha256, norm=found.norm, kept=found.kept, error=found.error
        )


@dataclass(frozen=True)
class Entry:
    """One patch of the stack. `id`: the first 12 digits of `hubedit.patch.identity.patch_id`; `name`: what
    the user called it; `base`, `commit`: the model that it was made for; `facts`: how many.
    """

    id: str
    name: str
    base: str
    commit: str
    facts: int
    tensors: tuple[str, ...]


@dataclass(frozen=True)
class Record:
    """`base`, `commit`: the name of a local folder and "", or a repository and its commit; `patches`: in the
    order in which they are added; `tensors`: by name; `converted`: the whole model got another dtype;
    `originals`: the base's bytes of the touched tensors lie in the folder; `licence`: of the base.
    """

    base: str
    commit: str
    patches: tuple[Entry, ...]
    tensors: Mapping[str, Touched]
    converted: str = ""
    originals: bool = False
    licence: Mapping[str, Any] = field(default_factory=dict)
    packages: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Content of hubedit.json."""
        return {
            "schema_version": SCHEMA,
            "kind": KIND,
            "base": {
                "ref": self.base,
                "commit": self.commit,
                "licence": dict(self.licence),
                "tensors": {name: t.base_sha256 for name, t in sorted(self.tensors.items())},
            },
            "lineage": [
                {
                    "id": each.id,
                    "name": each.name,
                    "folder": f"{PATCHES}/{number}",
                    "base": {"ref": each.base, "commit": each.commit},
                    "facts": each.facts,
                    "tensors": list(each.tensors),
                }
                for number, each in enumerate(self.patches, 1)
            ],
            "realised": {
                name: {**asdict(t), "shape": list(t.shape)} for name, t in sorted(self.tensors.items())
            },
            "converted": self.converted,
            "originals": self.originals,
            "packages": dict(self.packages),
        }

    @classmethod
    def read(cls, folder: Path) -> Record | None:
        """The record of a merged model's folder; None for a folder that is not one.

        Raises CheckpointError for a record that is damaged or of a newer hubedit.
        """
        file = folder / RECORD
        if not file.exists():
            return None
        data = read_json(file)
        if data.get("kind") != KIND:
            return None
        version = data.get("schema_version")
        if version != SCHEMA:
            raise CheckpointError(
                f"{file}: schema_version is {version!r}, this hubedit reads {SCHEMA}", "upgrade hubedit"
            )
        base = _get(file, data, "base", dict)
        tensors = {
            name: _touched(file, name, value) for name, value in _get(file, data, "realised", dict).items()
        }
        packages = _get(file, data, "packages", dict)
        record = cls(
            _get(file, base, "ref", str),
            _get(file, base, "commit", str),
            tuple(_entry(file, value) for value in _get(file, data, "lineage", list)),
            tensors,
            _get(file, data, "converted", str),
            _get(file, data, "originals", bool),
            _get(file, base, "licence", dict),
            {str(name): str(value) for name, value in packages.items()},
        )
        named = {name for entry in record.patches for name in entry.tensors}
        if not record.patches or named != set(tensors):
            raise CheckpointError(f"{file}: its patches and its tensors do not agree", _HINT)
        return record


def to_text(data: Mapping[str, Any]) -> str:
    """hubedit.json as it is written."""
    return f"{json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)}\n"


def facts_count(patch: Patch) -> int:
    """How many facts it holds, also where they were left out of it."""
    known = patch.record.get("facts")
    count = known.get("count", 0) if isinstance(known, Mapping) else 0
    return len(patch.facts) or (count if isinstance(count, int) else 0)


def _entry(file: Path, data: Any) -> Entry:
    tensors = _get(file, data, "tensors", list)
    identifier = _get(file, data, "id", str)
    if not re.fullmatch("[0-9a-f]{12}", identifier) or not all(isinstance(name, str) for name in tensors):
        raise CheckpointError(f"{file}: a patch is not described as hubedit does", _HINT)
    base = _get(file, data, "base", dict)
    return Entry(
        identifier,
        _get(file, data, "name", str),
        _get(file, base, "ref", str),
        _get(file, base, "commit", str),
        _get(file, data, "facts", int),
        tuple(tensors),
    )


def _touched(file: Path, name: str, data: Any) -> Touched:
    shape = _get(file, data, "shape", list)
    found = Touched(
        module=_get(file, data, "module", str),
        transposed=_get(file, data, "transposed", bool),
        shape=(0, 0),
        base_file=_get(file, data, "base_file", str),
        base_dtype=_get(file, data, "base_dtype", str),
        base_sha256=_get(file, data, "base_sha256", str),
        dtype=_get(file, data, "dtype", str),
        sha256=_get(file, data, "sha256", str),
        norm=_number(file, data, "norm"),
        kept=_number(file, data, "kept"),
        error=_number(file, data, "error"),
        base_values=_get(file, data, "base_values", dict) if "base_values" in data else {},
    )
    good = (
        len(shape) == 2
        and all(type(n) is int and n >= 0 for n in shape)
        and {found.base_dtype, found.dtype} <= set(FLOATS)
        and all(_HEX.fullmatch(value) for value in (found.base_sha256, found.sha256))
        and all(isinstance(v, str) and _HEX.fullmatch(v) for v in found.base_values.values())
        and PurePosixPath(found.base_file).name == found.base_file != ""
        and "\\" not in found.base_file
    )
    if not good:
        raise CheckpointError(f"{file}: tensor {name[:100]} is not described as hubedit does", _HINT)
    return replace(found, shape=(shape[0], shape[1]))


def _number(file: Path, data: Any, key: str) -> float:
    value = data.get(key) if isinstance(data, dict) else None
    # JSON as Python reads it can hold NaN, and integers beyond every float
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e300:
        return float(value)
    raise CheckpointError(f"{file}: {key} is missing or of the wrong kind", _HINT)


def _get(file: Path, data: Any, key: str, kind: type[Value]) -> Value:
    value = data.get(key) if isinstance(data, dict) else None
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise CheckpointError(f"{file}: {key} is missing or of the wrong kind", _HINT)
    return value


def vanished(record: Record) -> str:
    """A warning where rounding took too much of the change; "" where enough of it survived."""
    poor = {name: t for name, t in record.tensors.items() if t.kept < KEPT_ENOUGH}
    if not poor:
        return ""
    worst = min(poor, key=lambda name: poor[name].kept)
    count = f"{len(poor)} of {len(record.tensors)} tensors keep" if len(record.tensors) > 1 else "it keeps"
    return (
        f"{count} less than {100 * KEPT_ENOUGH:.0f} % of the change's energy when rounded to "
        f"{poor[worst].dtype} (least: {worst}, {100 * poor[worst].kept:.0f} %). Edit fewer, larger layers "
        "(hubedit apply --layers), merge with --dtype float32, or use the patch as an adapter"
    )
