"""Every kind of broken input and place, by `hubedit merge`: one line, nothing half-written, nothing lost."""

from __future__ import annotations

import errno
import json
import os
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hubedit.cli.app import run
from hubedit.patch import Patch
from tests.checkpoint.tiny import MODULES, content, patch, tiny

SHARD = "model-00001-of-00002.safetensors"
INDEX = "model.safetensors.index.json"


def changed_json(file: Path, **more: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **more}))


def another_revision(base: Path, made: Path) -> None:
    """The repository that the patch names, at a commit with other weights."""
    found = replace(Patch.load(made), base="owner/base", commit="a" * 40)
    found.save(made, overwrite=True)
    tensors = load_file(base / SHARD)
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, base / SHARD)


def another_shape(base: Path, _: Path) -> None:
    tensors = load_file(base / SHARD)
    save_file({n: t[:-1].contiguous() for n, t in tensors.items()}, base / SHARD)


def lying_header(base: Path, _: Path) -> None:
    data = (base / SHARD).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    name = next(n for n in header if n != "__metadata__")
    header[name]["data_offsets"][1] += 2
    text = json.dumps(header).encode()
    (base / SHARD).write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def outside(base: Path, _: Path) -> None:
    index = json.loads((base / INDEX).read_text())
    index["weight_map"][f"{MODULES[0]}.weight"] = "../secret.safetensors"
    (base / INDEX).write_text(json.dumps(index))


def foreign(made: Path) -> dict[str, torch.Tensor]:
    (made / "hubedit.json").unlink()
    return load_file(made / "adapter_model.safetensors")


def nobodys_tensors(_: Path, made: Path) -> None:
    tensors = foreign(made)
    more = {f"base_model.model.x.lora_{half}.weight": torch.ones(8, 8) for half in "AB"}
    save_file({**tensors, **more}, made / "adapter_model.safetensors")


def no_such_site(_: Path, made: Path) -> None:
    tensors = foreign(made)
    save_file({n.replace(".0.", ".7."): t for n, t in tensors.items()}, made / "adapter_model.safetensors")
    config = json.loads((made / "adapter_config.json").read_text())
    modules = [name.replace(".0.", ".7.") for name in config["target_modules"]]
    changed_json(made / "adapter_config.json", target_modules=modules)


def dora(_: Path, made: Path) -> None:
    foreign(made)
    changed_json(made / "adapter_config.json", use_dora=True)


BROKEN: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "wrong base": (lambda b, _: save_file(shifted(b), b / SHARD), "is not the model this patch was made for"),
    "wrong revision": (another_revision, f"hint: merge into owner/base@{'a' * 40}"),
    "other shapes": (another_shape, "but the patch needs"),
    "missing shard": (lambda b, _: (b / SHARD).unlink(), f"lacks the shard {SHARD}"),
    "missing index": (lambda b, _: (b / INDEX).unlink(), "has no safetensors weights"),
    "cut short": (lambda b, _: os.truncate(b / SHARD, 200), "is damaged: it is cut short"),
    "cut data": (
        lambda b, _: os.truncate(b / SHARD, (b / SHARD).stat().st_size - 4),
        "is damaged: its tensors",
    ),
    "noise": (lambda b, _: (b / SHARD).write_bytes(b"\xff" * 500), "is damaged"),
    "header that lies": (lying_header, "is damaged: tensor"),
    "index outside": (outside, "which is no file beside it"),
    "tensors that no module owns": (nobodys_tensors, "not among target_modules"),
    "module that the model lacks": (no_such_site, "has no tensor for module"),
    "DoRA": (dora, "the adapter uses DoRA"),
    "cut adapter": (lambda _, p: os.truncate(p / "adapter_model.safetensors", 99), "cannot be read"),
}


def shifted(base: Path) -> dict[str, torch.Tensor]:
    return {name: tensor + 1 for name, tensor in load_file(base / SHARD).items()}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_input_is_one_line_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    base = tiny(tmp_path / "m")
    made = patch(base).save(tmp_path / "p")
    spoil, said = BROKEN[case]
    spoil(base, made)
    before = content(tmp_path)
    assert run(["merge", str(made), "--model", str(base), "--out", str(tmp_path / "out")]) == 1
    printed = capsys.readouterr()
    errors = [line for line in printed.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and said in printed.err and not printed.out
    assert "internal error" not in printed.err and "hint: " in printed.err
    assert content(tmp_path) == before and sorted(os.listdir(tmp_path)) == ["m", "p"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("call", ["mkdir", "write", "rename"])
def test_a_disk_that_refuses_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
    call: str,
) -> None:
    base = tiny(tmp_path / "m")
    made = patch(base).save(tmp_path / "p")
    before = content(tmp_path)

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, refuse)
    # a place where not even a folder can be made is told before anything is read
    code = 2 if call == "mkdir" else 1
    assert run(["merge", str(made), "--model", str(base), "--out", str(tmp_path / "out")]) == code
    monkeypatch.undo()
    said = capsys.readouterr().err
    what = "cannot write to" if call == "mkdir" else "cannot be written to"
    assert f"{what} {tmp_path / 'out'}: {os.strerror(number)}" in said
    assert content(tmp_path) == before and sorted(os.listdir(tmp_path)) == ["m", "p"]


@pytest.mark.parametrize("there", ["merged", "stranger", "file", "link"])
def test_what_is_at_the_place_already_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], there: str
) -> None:
    base = tiny(tmp_path / "m")
    made = patch(base).save(tmp_path / "p")
    line = ["merge", str(made), "--model", str(base), "--out", str(tmp_path / "out")]
    if there == "merged":
        assert run(line) == 0
    elif there == "stranger":
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "thesis.txt").write_text("years")
    elif there == "file":
        (tmp_path / "out").write_text("years")
    else:
        (tmp_path / "out").symlink_to("m")
    before = content(tmp_path)
    assert run(line) == 2
    assert "choose another place with --out" in capsys.readouterr().err
    assert content(tmp_path) == before
