"""A folder that appears complete or not at all.

Everything is written into a hidden sibling, synced to disk unless it can be made again, and renamed. A
process that is killed leaves only the sibling, which the next run removes (its lock is gone with the
process). Where the system can exchange two folders in one step, an old folder is replaced in that step;
elsewhere by two renames, and the next run completes what was cut off between them.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from hubedit.errors import ConfigError, HubEditError, PatchError

if sys.platform != "win32":
    import fcntl

_SYNCS = 8


def write_folder(
    folder: Path,
    fill: Callable[[Path], None],
    *,
    marker: str,
    overwrite: bool,
    what: str = "patch",
    error: type[HubEditError] = PatchError,
    sync: bool = True,
) -> None:
    """Calls `fill` with an empty folder and puts the result at `folder`.

    `marker`: a file name that says the folder is one of ours; `overwrite` replaces only such a folder,
    and the old one stays until the new one is complete. `what`: how messages call it. `sync`: wait for the
    disk, so that a power cut loses nothing either; without it the system writes when it likes, as after `cp`.
    Raises ConfigError when something else is there, `error` when the disk refuses; then nothing is left
    behind.
    """
    folder = Path(os.path.abspath(folder))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _tidy(folder, marker)
        _check_content(folder, marker, overwrite, what)
        part = _part(folder)
        part.mkdir()
        try:
            with _held(part):
                fill(part)
                if sync:
                    _sync(part)
                _replace(part, folder, overwrite, sync)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except OSError as problem:
        reason = problem.strerror or str(problem)
        hint = next_step(problem)
        if what == "patch":
            hint += " with --out; finished stages are kept"
        raise error(f"the {what} cannot be written to {folder}: {reason}", hint) from problem


def next_step(problem: OSError) -> str:
    """What to do where something could not be written: only a full disk is mended by making room."""
    full = problem.errno in (errno.ENOSPC, errno.EDQUOT)
    return "make room, or choose another place" if full else "choose another place"


@contextmanager
def alone(folder: Path, *, error: type[HubEditError]) -> Iterator[None]:
    """Holds an existing folder, so that two runs do not change it at once. Raises `error` when one does."""
    if sys.platform == "win32":
        yield
        return
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as problem:
        raise error(f"cannot read {folder}: {problem.strerror}") from problem
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            if problem.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                yield  # a file system without locks
                return
            raise error(f"another run is working on {folder}", "wait until it has ended") from problem
        yield
    finally:
        os.close(handle)


def recover(folder: Path, marker: str) -> None:
    """Puts back what a killed run had moved aside, and removes what it left. OSError where it cannot."""
    folder = Path(os.path.abspath(folder))
    if folder.parent.is_dir():
        _tidy(folder, marker)


def check_name(name: str) -> PurePosixPath:
    """A relative file name inside the folder. Raises ValueError for one that leads out of it."""
    path = PurePosixPath(name)
    if path.is_absolute() or not path.parts or ".." in path.parts:
        raise ValueError(f"{name!r} is no file name inside a folder")
    return path


def check_free(folder: Path, marker: str, *, overwrite: bool, what: str = "patch") -> None:
    """Raises ConfigError where `write_folder` would refuse what is there, or nothing can be written."""
    _check_content(folder, marker, overwrite, what)
    check_writable(folder)


def _check_content(folder: Path, marker: str, overwrite: bool, what: str) -> None:
    if folder.is_symlink() or folder.is_file():
        raise ConfigError(f"{folder} is in the way: it is no folder", "choose another place with --out")
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not (folder / marker).is_file():
        raise ConfigError(
            f"{folder} is not empty and holds no {what}, so it is never replaced",
            "choose another place with --out",
        )
    if not overwrite:
        force = ", or add --force" if what == "patch" else ""
        raise ConfigError(f"{folder} exists already", f"choose another place with --out{force}")


def check_writable(folder: Path) -> None:
    """Raises ConfigError where no folder can be made for `folder`: known before the long work."""
    folder = Path(os.path.abspath(folder))
    try:
        there = next(parent for parent in folder.parents if parent.exists())
        part = _part(there / folder.name)
        part.mkdir()
    except OSError as problem:
        what = f"cannot write to {folder}: {problem.strerror or problem}"
        raise ConfigError(what, f"{next_step(problem)} with --out") from problem
    # another run may have taken it for abandoned, and removed it
    shutil.rmtree(part, ignore_errors=True)


def _part(folder: Path) -> Path:
    """A new name beside the folder, by which `_tidy` knows what a killed run has left."""
    return folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.part")


def _replace(part: Path, folder: Path, overwrite: bool, sync: bool) -> None:
    """Puts `part` at `folder`; the old folder is removed last."""
    if folder.exists() and overwrite and _exchange(part, folder):
        if sync:
            sync_file(folder.parent)
        return  # the old folder now has the name of the part, which is removed
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
    if sync:
        sync_file(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Swaps two names in one step, which no kill can cut; False where the system cannot."""
    name, more = {"linux": ("renameat2", True), "darwin": ("renamex_np", False)}.get(
        sys.platform, ("", False)
    )
    try:
        call = getattr(ctypes.CDLL(None, use_errno=True), name)
    except (AttributeError, TypeError, OSError):
        return False
    swap, here = 2, -100  # RENAME_EXCHANGE and RENAME_SWAP; AT_FDCWD
    paths = os.fsencode(one), os.fsencode(other)
    done = call(here, paths[0], here, paths[1], swap) if more else call(*paths, swap)
    return bool(done == 0)


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
    """Everything in the folder, and the folder itself, on the disk; side by side, since each waits for it."""
    paths = [path for path in sorted(folder.rglob("*"), reverse=True) if not path.is_symlink()]
    with ThreadPoolExecutor(_SYNCS) as pool:
        for _ in pool.map(sync_file, [*paths, folder]):
            pass


def sync_file(path: Path) -> None:
    """A file's content, or a folder's names, on the disk. Raises OSError."""
    if sys.platform == "win32" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_file(path: Path, content: bytes | Callable[[Path], object]) -> None:
    """Puts a file at `path`, whole and synced or not at all; a link there is replaced, not followed.

    `content`: the bytes, or what writes them to the temporary name that it is given. The folder must be
    there. Raises OSError, and what `content` raises; then what was there stays.
    """
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        if isinstance(content, bytes):
            part.write_bytes(content)
        else:
            content(part)
        with part.open("rb+") as stream:  # else a power cut can leave the name without the bytes
            os.fsync(stream.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
