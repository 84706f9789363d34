"""The bytes of stored tensors, read in blocks, and several tensors at once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from hubedit.errors import CheckpointError
from hubedit.weights.header import AGAIN, TensorEntry

_BLOCK = 1 << 20  # stays in the processor's cache while it is read and hashed
_WORKERS = 4
Found = TypeVar("Found")


def read_bytes(entry: TensorEntry) -> bytearray:
    """A tensor's bytes, all at once. Raises CheckpointError."""
    data = bytearray(entry.nbytes)
    _fill(entry, entry.start, memoryview(data))
    return data


def blocks(entry: TensorEntry, size: int = _BLOCK) -> Iterator[memoryview]:
    """A tensor's bytes in pieces; each piece is overwritten by the next. Raises CheckpointError."""
    buffer = memoryview(bytearray(min(size, entry.nbytes)))
    for start in range(entry.start, entry.end, size):
        piece = buffer[: min(size, entry.end - start)]
        _fill(entry, start, piece)
        yield piece


def tensor_digest(entry: TensorEntry) -> str:
    """sha256 (hex) of a tensor's bytes as they are stored, read in blocks. Raises CheckpointError."""
    total = hashlib.sha256()
    for block in blocks(entry):
        total.update(block)
    return total.hexdigest()


def side_by_side(work: Callable[[TensorEntry], Found], entries: Iterable[TensorEntry]) -> list[Found]:
    """`work` of every tensor, several at once: reading and hashing leave Python's lock alone. In their order.

    Raises what the first of them raises.
    """
    with ThreadPoolExecutor(workers()) as pool:
        try:
            return list(pool.map(work, entries))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def workers() -> int:
    """Threads to compute with: the processors that this process may use, at most 4."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(_WORKERS, here or 1))


def _fill(entry: TensorEntry, start: int, into: memoryview) -> None:
    """Reads exactly as many bytes as fit."""
    done = 0
    try:
        with entry.file.open("rb", buffering=0) as stream:
            stream.seek(start)
            while done < len(into):
                count = stream.readinto(into[done:])
                if not count:
                    break
                done += count
    except OSError as error:
        raise CheckpointError(f"cannot read {entry.file}: {error.strerror or error}", AGAIN) from error
    if done < len(into):
        raise CheckpointError(f"{entry.file} was cut short while it was read", AGAIN)
