"""Damaged files of every kind, thousands of them: what comes out is a model, or one typed error."""

from __future__ import annotations

import json
import random
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hubedit.checkpoint import merge as merging
from hubedit.checkpoint import revert as reverting
from hubedit.checkpoint.merge import merge
from hubedit.checkpoint.origin import Origin
from hubedit.checkpoint.read import Checkpoint
from hubedit.errors import HubEditError
from hubedit.patch.foreign import load_any
from hubedit.progress import Silent
from tests.checkpoint.tiny import local, patch, tiny

CASES = 600
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


def cases(folder: Path, names: tuple[str, ...], seed: int, count: int = CASES) -> Iterator[None]:
    """Damages one file after the other, and mends it after each case."""
    chance = random.Random(seed)
    for _ in range(count):
        file = folder / chance.choice(names)
        good = file.read_bytes()
        file.write_bytes(damaged(file, chance))
        yield
        file.write_bytes(good)


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


@pytest.mark.parametrize("seed", range(2))
def test_damaged_checkpoints(tmp_path: Path, seed: int) -> None:
    base = tiny(tmp_path / "m")
    one = patch(base)
    names = ("model.safetensors.index.json", *(p.name for p in base.glob("*.safetensors")), "config.json")

    def work() -> None:
        checkpoint = Checkpoint.open(base)
        for name in checkpoint.tensors:
            checkpoint.sha256(name)
        merging.prepare([one], local(base), tmp_path / "out")

    worked = [outcome(work) for _ in cases(base, names, seed)]
    assert 0 < sum(worked) < len(worked)


def test_damaged_checkpoints_are_merged_right_or_not_at_all(tmp_path: Path) -> None:
    base = tiny(tmp_path / "m", shards=1)
    one = patch(base)
    names = ("model.safetensors", "config.json")
    chance = random.Random(3)
    for _ in range(CASES // 6):
        file = base / chance.choice(names)
        good = file.read_bytes()
        file.write_bytes(damaged(file, chance))
        if outcome(lambda: merge([one], local(base), tmp_path / "out")):
            Checkpoint.open(tmp_path / "out")
            shutil.rmtree(tmp_path / "out")
        assert [p.name for p in tmp_path.iterdir()] == ["m"]
        file.write_bytes(good)


@pytest.mark.parametrize("seed", range(2))
def test_damaged_patches(tmp_path: Path, seed: int) -> None:
    base = tiny(tmp_path / "m")
    path = patch(base, fact="Lyon").save(tmp_path / "p")
    names = ("adapter_config.json", "adapter_model.safetensors", "hubedit.json", "facts.jsonl")

    def work() -> None:
        merging.prepare([load_any(path)], local(base), tmp_path / "out")

    worked = [outcome(work) for _ in cases(path, names, seed)]
    assert 0 < sum(worked) < len(worked)


def test_damaged_adapters_of_other_tools(tmp_path: Path) -> None:
    base = tiny(tmp_path / "m")
    path = patch(base).save(tmp_path / "p")
    (path / "hubedit.json").unlink()

    def work() -> None:
        merging.prepare([load_any(path)], local(base), tmp_path / "out")

    worked = [outcome(work) for _ in cases(path, ("adapter_config.json", "adapter_model.safetensors"), 7)]
    assert 0 < sum(worked) < len(worked)


@pytest.mark.parametrize("seed", range(2))
def test_damaged_merged_models(tmp_path: Path, seed: int) -> None:
    base = tiny(tmp_path / "m")
    out = merge([patch(base, 1, fact="Lyon"), patch(base, 2)], local(base), tmp_path / "out").path
    names = (
        "hubedit.json",
        "originals/model.safetensors",
        "patches/1/hubedit.json",
        "patches/2/adapter_config.json",
    )

    def work() -> None:
        made = reverting.prepare(out, last=True)
        Origin(kept=out).find(made.assembly.changes, tmp_path / "scratch", Silent())
        merging.prepare([patch(base, 3)], local(out), tmp_path / "more")

    worked = [outcome(work) for _ in cases(out, names, seed, CASES // 3)]
    assert 0 < sum(worked) < len(worked)
