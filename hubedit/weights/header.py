"""The header of a safetensors file: where each tensor's bytes lie, checked before anything is believed.

Format: 8 bytes little-endian length, that many bytes of JSON, then the tensors' bytes without gaps
(https://huggingface.co/docs/safetensors#format).
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hubedit.errors import CheckpointError

# bits of one element
_BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E5M2FNUZ", "F8_E4M3FNUZ"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}
_MOST_HEADER = 100_000_000  # the limit of the safetensors library
_MOST_DIMENSIONS = 64
AGAIN = "download or copy the checkpoint again"


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of a checkpoint. `start`, `end`: its bytes, counted from the beginning of `file`.

    `dtype`: as safetensors writes it ("BF16").
    """

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def nbytes(self) -> int:
        return self.end - self.start


@dataclass(frozen=True)
class Header:
    """`tensors` by name, in the order of their bytes; `metadata`: the strings under `__metadata__`."""

    file: Path
    tensors: Mapping[str, TensorEntry]
    metadata: Mapping[str, str]


def read_header(file: Path) -> Header:
    """Reads and checks a file's header. Raises CheckpointError for a header that lies or a file cut short."""
    try:
        with file.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            head = stream.read(8)
            length = struct.unpack("<Q", head)[0] if len(head) == 8 else -1
            if length < 0 or length > min(_MOST_HEADER, size - 8):
                raise _bad(file, "it is cut short, or no safetensors file")
            text = stream.read(length)
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error.strerror or error}", AGAIN) from error
    data = _parse(file, text)
    metadata = data.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _bad(file, "its __metadata__ is no table of strings")
    entries = sorted(
        (_entry(file, name, value, 8 + length) for name, value in data.items()),
        key=lambda e: (e.start, e.end),
    )
    end = 8 + length
    for entry in entries:
        if entry.start != end:
            what = "overlaps another" if entry.start < end else "leaves a gap before it"
            raise _bad(file, f"tensor {entry.name} {what}")
        end = entry.end
    if end != size:
        raise _bad(file, f"its tensors end at byte {end:,}, but it has {size:,}")
    return Header(file, MappingProxyType({e.name: e for e in entries}), MappingProxyType(metadata))


def header_bytes(tensors: Mapping[str, tuple[str, tuple[int, ...]]], metadata: Mapping[str, str]) -> bytes:
    """The header of a new file whose tensors, name -> (dtype, shape), lie in the given order."""
    data: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, (dtype, shape) in tensors.items():
        start, end = end, end + nbytes(dtype, shape)
        data[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the tensors stay aligned
    return struct.pack("<Q", len(text)) + text


def nbytes(dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor."""
    return prod(shape) * _BITS[dtype] // 8


def _parse(file: Path, text: bytes) -> dict[str, Any]:
    try:
        data = json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise _bad(file, f"its header is not JSON ({str(error)[:80]})") from error
    if not isinstance(data, dict):
        raise _bad(file, "its header is no JSON object")
    return data


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Readers differ in which of two equal names they take."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands there twice")
    return found


def _entry(file: Path, name: str, value: Any, begin: int) -> TensorEntry:
    shown = name[:100]
    if not name.isprintable():  # also half of a surrogate pair, which no file can hold
        raise _bad(file, f"a tensor is called {shown!a}")
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise _bad(file, f"tensor {shown} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise _bad(file, f"tensor {shown} has the unknown dtype {str(dtype)[:40]!r}")
    if not _naturals(shape) or len(shape) > _MOST_DIMENSIONS:
        raise _bad(file, f"tensor {shown} has no shape")
    if not _naturals(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _bad(file, f"tensor {shown} has no place")
    bits = prod(shape) * _BITS[dtype]
    if bits % 8 or offsets[1] - offsets[0] != bits // 8:
        raise _bad(file, f"tensor {shown} has another size than its shape and dtype say")
    return TensorEntry(name, file, dtype, tuple(shape), begin + offsets[0], begin + offsets[1])


def _naturals(value: Any) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 1 << 63 for n in value)


def _bad(file: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{file} is damaged: {what}", AGAIN)
