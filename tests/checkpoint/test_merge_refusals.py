"""What a merge refuses, what it leaves behind when the disk does, and what it plans to write."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from hubedit.checkpoint.merge import MergeOptions, merge, prepare
from hubedit.checkpoint.read import Checkpoint
from hubedit.errors import CheckpointError, ConfigError, HubEditError
from hubedit.linalg import LowRank
from hubedit.patch import Patch
from tests.checkpoint.tiny import MODULES, content, local, patch, tiny

DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
DOWN = MODULES[1]


# --- refusals --------------------------------------------------------------------------------------------


def wide(base: Path) -> Patch:
    made = patch(base, modules=[DOWN])
    return Patch({DOWN: LowRank(torch.ones(6, 1), torch.ones(1, 11))}, made.record, made.base)


def stranger(base: Path) -> Patch:
    made = patch(base, modules=[DOWN])
    return Patch({"model.layers.9.mlp.down_proj": made.factors[DOWN]}, made.record, made.base)


def changed(base: Path) -> Patch:
    made = patch(base)
    file = base / "model-00001-of-00002.safetensors"
    data = bytearray(file.read_bytes())
    data[-5:] = b"\0\0\1\0\0"
    entry = Checkpoint.open(base).entry(f"{MODULES[0]}.weight")
    data[entry.start] ^= 1
    file.write_bytes(data)
    return made


def adapter_beside(base: Path) -> Patch:
    made = patch(base)
    (base / "adapter_config.json").write_text("{}")
    return made


def named(base: Path) -> Patch:
    (base / "originals").mkdir()
    return patch(base)


def unsure(base: Path) -> Patch:
    made = patch(base)
    return Patch(made.factors, {}, made.base)


REFUSALS: dict[str, tuple[Callable[[Path], Patch], str]] = {
    "shape": (wide, "is 6 x 10, but the patch needs 6 x 11"),
    "module": (stranger, "has no tensor for module model.layers.9"),
    "wrong base": (changed, "is not the model this patch was made for"),
    "adapter at the root": (adapter_beside, "also holds a LoRA adapter"),
    "names": (named, "holds originals/"),
    "no hashes": (unsure, "does not say which base weights"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_does_not_fit_is_refused_and_nothing_is_written(tmp_path: Path, case: str) -> None:
    base = tiny(tmp_path / "m")
    make, message = REFUSALS[case]
    made = make(base)
    before = content(base)
    with pytest.raises(HubEditError, match=message):
        merge([made], local(base), tmp_path / "out")
    assert os.listdir(tmp_path) == ["m"] and content(base) == before


def test_bad_options_and_places_are_refused(tmp_path: Path) -> None:
    base = tiny(tmp_path / "m")
    one = patch(base)
    with pytest.raises(ConfigError, match="no patch"):
        merge([], local(base), tmp_path / "out")
    with pytest.raises(ConfigError, match="unknown dtype"):
        MergeOptions(dtype="int8")
    with pytest.raises(ConfigError, match="shard size"):
        MergeOptions(max_shard_size=0)
    for out in (base, base / "merged"):
        with pytest.raises(ConfigError, match="inside the base"):
            merge([one], local(base), out)
    merge([one], local(base), tmp_path / "out")
    before = content(tmp_path / "out")
    with pytest.raises(ConfigError, match="exists already"):
        merge([one], local(base), tmp_path / "out")
    assert content(tmp_path / "out") == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(ConfigError, match="never replaced"):
        merge([one], local(base), tmp_path / "mine")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write to"):
        merge([one], local(base), tmp_path / "file" / "out")
    with pytest.raises(CheckpointError, match="is a LoRA adapter"):
        merge([one], local(one.save(tmp_path / "p")), tmp_path / "out2")


def test_quantised_weights_are_refused(tmp_path: Path) -> None:
    base = tiny(tmp_path / "m", torch.float8_e4m3fn)
    made = Patch({DOWN: LowRank(torch.ones(6, 1), torch.ones(1, 10))}, {}, "b")
    with pytest.raises(CheckpointError, match="quantised weights cannot be merged"):
        merge([made], local(base), tmp_path / "out")


# where these fail there is another way, or the disk offers a better one
FOUND = ("link", "copy_file_range")


@pytest.mark.parametrize(("call", "at"), [("rename", 0), *product(("write", "mkdir", *FOUND), (0, 1, 2))])
def test_a_disk_that_refuses_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, at: int
) -> None:
    base = tiny(tmp_path / "m")
    before = content(base)
    real, calls = getattr(os, call), []

    def refuse(*arguments: Any, **more: Any) -> Any:
        calls.append(arguments)
        if len(calls) > at:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*arguments, **more)

    made = prepare([patch(base), patch(base, 2)], local(base), tmp_path / "out")
    monkeypatch.setattr(os, call, refuse)
    with contextlib.nullcontext() if call in FOUND else pytest.raises(HubEditError, match="No space left"):
        made.write()
    assert calls or call in FOUND
    if call not in FOUND:
        assert os.listdir(tmp_path) == ["m"]
    monkeypatch.undo()
    assert content(base) == before


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_place_is_one_line(tmp_path: Path) -> None:
    base = tiny(tmp_path / "m")
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(ConfigError, match="cannot write to"):
        merge([patch(base)], local(base), tmp_path / "closed" / "out")


def test_the_plan_says_what_will_be_written(tmp_path: Path) -> None:
    base = tiny(tmp_path / "m")
    made = prepare([patch(base, modules=[DOWN])], local(base), tmp_path / "out")
    plan = made.plan()
    entry = Checkpoint.open(base).entry(f"{DOWN}.weight")
    assert dict(plan.tensors) == {entry.name: entry.file.name} and plan.rewritten == (entry.file.name,)
    assert plan.rewritten_bytes == entry.file.stat().st_size and plan.originals_bytes == entry.nbytes
    assert not (tmp_path / "out").exists()
    files = made.write().files
    assert {name for name, how in files.items() if how == "rewritten"} == set(plan.rewritten)
    assert set(files) == {*plan.rewritten, *plan.untouched}


@pytest.mark.parametrize("size", [None, 300, 10**6])
@pytest.mark.parametrize("dtype", [None, "float32", "bfloat16"])
def test_the_plan_is_what_comes_out(tmp_path: Path, dtype: str | None, size: int | None) -> None:
    base = tiny(tmp_path / "m")
    options = MergeOptions(dtype=dtype, max_shard_size=size)
    made = prepare([patch(base, modules=[DOWN])], local(base), tmp_path / "out", options)
    plan, done = made.plan(), made.write()
    new = Checkpoint.open(done.path)
    assert {*plan.rewritten, *plan.untouched} == set(new.headers)
    assert plan.rewritten_bytes == sum((done.path / name).stat().st_size for name in plan.rewritten)
    assert plan.untouched_bytes == sum((done.path / name).stat().st_size for name in plan.untouched)
    every = set(new.tensors) if dtype == "float32" else {f"{DOWN}.weight"}
    assert dict(plan.tensors) == {name: new.entry(name).file.name for name in every}
    kept = Checkpoint.open(base).entry(f"{DOWN}.weight").nbytes
    assert plan.originals_bytes == kept


def test_the_type_that_the_model_has_already_is_no_conversion(tmp_path: Path) -> None:
    base = tiny(tmp_path / "m")
    plain = merge([patch(base)], local(base), tmp_path / "plain")
    same = merge([patch(base)], local(base), tmp_path / "same", MergeOptions(dtype="bfloat16"))
    assert content(same.path) == content(plain.path) and same.record.converted == ""


def test_a_place_that_is_taken_is_told_before_the_weights_are_read(tmp_path: Path) -> None:
    base = tiny(tmp_path / "m")
    one = patch(base)
    merge([one], local(base), tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    prepare([one], local(base), tmp_path / "empty")
    for file in base.glob("*.safetensors"):  # who reads the weights finds none
        file.unlink()
    for name, message in (("out", "exists already"), ("mine", "never replaced"), ("file", "no folder")):
        with pytest.raises(ConfigError, match=message):
            prepare([one], local(base), tmp_path / name)


def test_no_model_library_is_imported() -> None:
    code = (
        "import sys, hubedit.checkpoint.merge, hubedit.checkpoint.revert; "
        "assert not {'transformers', 'peft'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
