"""A patch is written completely or not at all, and nothing of others is replaced."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hubedit import folder
from hubedit.errors import ConfigError, PatchError
from hubedit.patch import Patch
from tests.patch.parts import content, made


def test_nothing_is_replaced_unless_asked_and_never_a_strangers_folder(tmp_path: Path) -> None:
    path = made().save(tmp_path / "p")
    before = content(path)
    with pytest.raises(ConfigError, match="exists already"):
        made(seed=1).save(path)
    assert content(path) == before
    made(seed=1).save(path, overwrite=True)
    assert Patch.load(path).record["seed"] == 1
    stranger = tmp_path / "mine"
    stranger.mkdir()
    (stranger / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="never replaced"):
        made().save(stranger, overwrite=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="no folder"):
        made().save(tmp_path / "file", overwrite=True)
    (tmp_path / "empty").mkdir()
    made().save(tmp_path / "empty")
    assert sorted(os.listdir(tmp_path)) == ["empty", "file", "mine", "p"]


@pytest.mark.parametrize("name", ["../x", "/x", "", "plots/../../x"])
def test_no_file_is_written_outside(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="no file name"):
        made().save(tmp_path / "p", files={name: b""})
    with pytest.raises(ValueError, match="written by the patch itself"):
        made().save(tmp_path / "p", files={"hubedit.json": b""})


@pytest.mark.parametrize("call", ["fsync", "rename"])
@pytest.mark.parametrize("exists", [False, True])
def test_a_disk_that_refuses_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, exists: bool
) -> None:
    path = tmp_path / "p"
    if exists:
        made().save(path)
    before = content(tmp_path)
    real, calls = getattr(os, call), []

    def refuse(*arguments: Any) -> None:
        calls.append(arguments)
        # with an old folder in the way the second rename is the one that puts the new one there
        if len(calls) == (2 if exists else 1):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*arguments)

    monkeypatch.setattr(os, call, refuse)
    monkeypatch.setattr(folder, "_exchange", lambda *_: False)  # the way of systems that cannot swap folders
    with pytest.raises(PatchError, match="No space left on device"):
        made(seed=1).save(path, overwrite=True)
    assert content(tmp_path) == before
    assert os.listdir(tmp_path) == (["p"] if exists else [])


def test_a_place_one_may_not_write_to_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PatchError, match="cannot be written"):
        made().save(tmp_path / "file" / "p")


def test_an_interrupted_run_leaves_nothing_at_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        made().save(tmp_path / "p")
    assert os.listdir(tmp_path) == []


_KILLED = """
import os, signal, sys
from hubedit import folder
from tests.patch.parts import made
at = sys.argv[2]
real = getattr(folder, at)
def die(*a):
    if at == "sync_file": real(*a)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(folder, at, die)
made(seed=1).save(sys.argv[1], overwrite=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9")
def test_a_killed_run_leaves_the_old_patch_and_the_next_run_tidies(tmp_path: Path) -> None:
    path = made().save(tmp_path / "p")
    before = content(path)
    run = subprocess.run(
        [sys.executable, "-c", _KILLED, str(path), "sync_file"], check=False, capture_output=True
    )
    assert run.returncode == -9, run.stderr
    assert content(path) == before
    assert len(os.listdir(tmp_path)) == 2
    # killed between the two renames: the old folder is still there, under another name
    os.rename(path, tmp_path / ".p.0123abcd.old")
    with pytest.raises(ConfigError, match="exists already"):
        made(seed=1).save(path)
    assert os.listdir(tmp_path) == ["p"]
    assert content(path) == before


def test_a_run_that_is_still_writing_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / ".p.0123abcd.part"
    other.mkdir()
    with folder._held(other):
        made().save(tmp_path / "p")
        assert other.is_dir()
    made().save(tmp_path / "p", overwrite=True)
    assert not other.exists()


_FULL = """
import resource, sys
from hubedit.errors import PatchError
from tests.patch.parts import made
patch = made((40, 4000))
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    patch.save(sys.argv[1])
except PatchError as error:
    print(error.message)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on file sizes to stand for a full disk")
def test_a_file_that_does_not_fit_is_one_line(tmp_path: Path) -> None:
    run = subprocess.run([sys.executable, "-c", _FULL, str(tmp_path / "p")], check=True, capture_output=True)
    assert b"File too large" in run.stdout and run.stdout.count(b"\n") == 1
    assert os.listdir(tmp_path) == []
