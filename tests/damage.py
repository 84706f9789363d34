"""Damaged files of every kind, from a seed: bytes changed, and JSON that means something else."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hypothesis import settings

from hubedit.errors import HubEditError

NASTY: tuple[Any, ...] = (
    None, True, -1, 0, 1.5, 1 << 70, -(1 << 70), 1e308, float("nan"), "", "x", "../x", "\ud800", "\0",
    [], {}, [[]], [None], {"a": []}, "9" * 5000, [1 << 40] * 9, "F32", "BF16", "model.safetensors",
)  # fmt: skip


def flipped(data: bytes, chance: random.Random) -> bytes:
    """A few bytes changed, cut out, doubled or put in."""
    made = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(made) + 1)
        end = min(len(made), at + chance.choice((1, 1, 8, 100)))
        how = chance.randrange(5)
        if how == 0:
            made[at:end] = bytes(chance.randrange(256) for _ in range(end - at))
        elif how == 1:
            del made[at:end]
        elif how == 2:
            made[at:at] = made[at:end]
        elif how == 3:
            del made[at:]
        else:
            made[at:at] = chance.choice(
                (b"0", b"-", b"[", b"{", b'"', b"\xff", b"\0" * 9, b"1e999", b"[" * 3000)
            )
    return bytes(made)


def altered(value: Any, chance: random.Random) -> Any:
    """JSON data in which one place, anywhere, holds something else."""
    if isinstance(value, dict) and value and chance.random() < 0.85:
        key = chance.choice(sorted(value))
        if chance.random() < 0.15:
            return {name: item for name, item in value.items() if name != key}
        return {**value, key: altered(value[key], chance)}
    if isinstance(value, list) and value and chance.random() < 0.7:
        at = chance.randrange(len(value))
        return [*value[:at], altered(value[at], chance), *value[at + 1 :]]
    return chance.choice(NASTY)


def damaged(file: Path, chance: random.Random) -> bytes:
    """The content of a file, damaged as bytes or as what it means."""
    data = file.read_bytes()
    if chance.random() < 0.4:
        return flipped(data, chance)
    if file.suffix.startswith(".json"):
        return json.dumps(altered(json.loads(data), chance)).encode("utf-8", "surrogatepass")
    (length,) = struct.unpack("<Q", data[:8])
    header = altered(json.loads(data[8 : 8 + length]), chance)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def cases(folder: Path, names: tuple[str, ...], seed: int, count: int) -> Iterator[None]:
    """Damages one file after the other, and mends it after each case."""
    chance = random.Random(seed)
    for _ in range(often(count)):
        file = folder / chance.choice(names)
        good = file.read_bytes()
        file.write_bytes(damaged(file, chance))
        yield
        file.write_bytes(good)


def often(count: int) -> int:
    """`count`, or as many as the profile of hypothesis says where that is more (HYPOTHESIS_PROFILE=long)."""
    return max(count, settings().max_examples)


def outcome(work: Callable[[], object]) -> bool:
    """True when it worked; typed errors have one line, everything else is raised."""
    try:
        work()
    except HubEditError as error:
        lines = len(error.message.splitlines())
    else:
        return True
    assert lines == 1
    return False
