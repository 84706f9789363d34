"""A folder that appears complete or not at all.

Everything is written into a hidden sibling, synced to disk, and renamed. A process that is killed leaves
only the sibling, which the next run removes (its lock is gone with the process).
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from hubedit.errors import PatchError

if sys.platform != "win32":
    import fcntl


def write_folder(folder: Path, fill: Callable[[Path], None], *, marker: str, overwrite: bool) -> None:
    """Calls `fill` with an empty folder and puts the result at `folder`.

    `marker`: a file name that says the folder is one of ours; `overwrite` replaces only such a folder,
    and the old one stays until the new one is complete. Raises PatchError when something else is there
    or the disk refuses; then nothing is left behind.
    """
    folder = Path(os.path.abspath(folder))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _tidy(folder, marker)
        _check_free(folder, marker, overwrite)
        part = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.part")
        part.mkdir()
        try:
            with _held(part):
                fill(part)
                _sync(part)
                _replace(part, folder, overwrite)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise PatchError(
            f"the patch cannot be written to {folder}: {reason}",
            "make room or choose another place with --out; finished stages are kept",
        ) from error


def check_name(name: str) -> PurePosixPath:
    """A relative file name inside the folder. Raises ValueError for one that leads out of it."""
    path = PurePosixPath(name)
    if path.is_absolute() or not path.parts or ".." in path.parts:
        raise ValueError(f"{name!r} is no file name inside a folder")
    return path


def _check_free(folder: Path, marker: str, overwrite: bool) -> None:
    if folder.is_symlink() or folder.is_file():
        raise PatchError(f"{folder} is in the way: it is no folder", "choose another place with --out")
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not (folder / marker).is_file():
        raise PatchError(
            f"{folder} is not empty and holds no patch, so it is never replaced",
            "choose another place with --out",
        )
    if not overwrite:
        raise PatchError(f"{folder} exists already", "choose another place with --out, or add --force")


def _replace(part: Path, folder: Path, overwrite: bool) -> None:
    """Puts `part` at `folder`; the old folder is moved aside first, and removed last."""
    old = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.old")
    if folder.exists() and overwrite:
        os.rename(folder, old)
    elif folder.exists():
        folder.rmdir()  # empty, or another run has filled it meanwhile: then this raises
    try:
        os.rename(part, folder)
    except OSError:
        if old.exists():
            os.rename(old, folder)
        raise
    _sync_file(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _tidy(folder: Path, marker: str) -> None:
    """Removes what a killed run left, and puts back an old folder that was moved aside last."""
    pattern = re.compile(rf"\.{re.escape(folder.name)}\.[0-9a-f]{{8}}\.(part|old)")
    for path in sorted(folder.parent.iterdir()):
        found = pattern.fullmatch(path.name)
        if found is None or not path.is_dir() or path.is_symlink():
            continue
        if found[1] == "old" and not folder.exists() and (path / marker).is_file():
            os.rename(path, folder)
        elif found[1] == "old" or _abandoned(path):
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Locks a folder for as long as this process lives, so that no other run takes it for abandoned."""
    if sys.platform == "win32":
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _abandoned(folder: Path) -> bool:
    """Whether no living process holds the folder. Where locks do not exist it is left alone."""
    if sys.platform == "win32":
        return False
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


def _sync(folder: Path) -> None:
    """Everything in the folder, and the folder itself, on the disk."""
    for path in sorted(folder.rglob("*"), reverse=True):
        _sync_file(path)
    _sync_file(folder)


def _sync_file(path: Path) -> None:
    if sys.platform == "win32" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
