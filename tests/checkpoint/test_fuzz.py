"""Damaged files of every kind, thousands of them: what comes out is a model, or one typed error."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from hubedit.checkpoint import merge as merging
from hubedit.checkpoint import revert as reverting
from hubedit.checkpoint.merge import merge
from hubedit.checkpoint.origin import Origin
from hubedit.checkpoint.read import Checkpoint
from hubedit.patch.foreign import load_any
from hubedit.progress import Silent
from tests.checkpoint.tiny import local, patch, tiny
from tests.damage import cases, damaged, often, outcome

CASES = 600


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

    worked = [outcome(work) for _ in cases(base, names, seed, CASES)]
    assert 0 < sum(worked) < len(worked)


def test_damaged_checkpoints_are_merged_right_or_not_at_all(tmp_path: Path) -> None:
    base = tiny(tmp_path / "m", shards=1)
    one = patch(base)
    names = ("model.safetensors", "config.json")
    chance = random.Random(3)
    for _ in range(often(CASES // 6)):
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

    worked = [outcome(work) for _ in cases(path, names, seed, CASES)]
    assert 0 < sum(worked) < len(worked)


def test_damaged_adapters_of_other_tools(tmp_path: Path) -> None:
    base = tiny(tmp_path / "m")
    path = patch(base).save(tmp_path / "p")
    (path / "hubedit.json").unlink()

    def work() -> None:
        merging.prepare([load_any(path)], local(base), tmp_path / "out")

    worked = [
        outcome(work) for _ in cases(path, ("adapter_config.json", "adapter_model.safetensors"), 7, CASES)
    ]
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
