"""How a file gets from one folder into another: as a clone, a hard link, or a copy of its bytes.

Links of the source are always followed, so nothing here ever writes through the Hub cache's links. A hard
link shares its bytes with the source: only the weights of a local folder are linked, files which people
replace and do not change in place. A blob of the cache is never linked, since other snapshots read it.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

Link = Literal["auto", "copy"]
Placed = Literal["cloned", "linked", "copied"]

_CLONE = 0x40049409  # FICLONE of linux/fs.h
_PIECE = 1 << 24

if sys.platform == "linux":
    import fcntl


def place(source: Path, target: Path, link: Link, *, hard: bool) -> Placed:
    """Puts a file's bytes at `target`, which must not exist. Raises OSError.

    `link`: "auto" clones where the file system can, else links when `hard` allows it, else copies.
    """
    linkable = hard and not source.is_symlink()
    real = source.resolve(strict=True)
    if link == "auto":
        if clone(real, target):
            shutil.copystat(real, target)
            return "cloned"
        if linkable:
            try:
                os.link(real, target)
                return "linked"
            except OSError:
                pass  # another device, or a file system without links
    with target.open("xb") as stream:
        copy_range(real, stream.fileno(), 0, real.stat().st_size, 0)
    shutil.copystat(real, target)
    return "copied"


def clone(source: Path, target: Path) -> bool:
    """Makes `target` share the source's blocks until one of them changes; False where that is impossible."""
    if sys.platform != "linux":
        return False
    with source.open("rb") as old, target.open("xb") as new:
        try:
            fcntl.ioctl(new.fileno(), _CLONE, old.fileno())
            return True
        except OSError:
            pass
    target.unlink()
    return False


def copy_range(source: Path, target: int, start: int, end: int, at: int) -> None:
    """Copies bytes `start` to `end` of a file to offset `at` of an open one. Raises OSError."""
    with source.open("rb", buffering=0) as stream:
        while start < end:
            count = _copy(stream.fileno(), target, start, min(_PIECE, end - start), at)
            if not count:
                raise OSError(f"{source} was cut short while it was read")
            start, at = start + count, at + count


def write_at(target: int, data: memoryview, at: int) -> None:
    """Writes all of `data` at an offset. Raises OSError."""
    while data:
        count = _pwrite(target, data, at)
        data, at = data[count:], at + count


@contextmanager
def writing(file: Path, at: int) -> Iterator[Callable[[memoryview], None]]:
    """Gives what writes piece after piece into an existing file, from an offset on. Raises OSError."""
    with file.open("r+b", buffering=0) as stream:
        stream.seek(at)

        def write(data: memoryview) -> None:
            while data:
                data = data[os.write(stream.fileno(), data) :]

        yield write


def _copy(source: int, target: int, start: int, count: int, at: int) -> int:
    """Copies at most `count` bytes inside the kernel where it can, and says how many."""
    if sys.platform == "linux":
        try:
            return os.copy_file_range(source, target, count, start, at)
        except OSError:
            pass  # the two file systems cannot; the way below says what is really wrong
    os.lseek(source, start, os.SEEK_SET)
    data = os.read(source, min(count, 1 << 22))
    write_at(target, memoryview(data), at)
    return len(data)


def _pwrite(target: int, data: memoryview, at: int) -> int:
    os.lseek(target, at, os.SEEK_SET)
    return os.write(target, data)
