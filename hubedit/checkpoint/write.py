"""The weight files of a new folder: untouched ones linked or copied, touched tensors rewritten in between."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from hubedit.checkpoint.delta import FLOATS, Change, Realised, convert
from hubedit.checkpoint.place import Link, clone, copy_range, place, write_at, writing
from hubedit.checkpoint.read import INDEX, SINGLE, Checkpoint, read_json
from hubedit.errors import CheckpointError
from hubedit.model.tensor_names import is_buffer
from hubedit.progress import Progress
from hubedit.weights.blocks import workers
from hubedit.weights.header import Header, TensorEntry, header_bytes, nbytes

_MB = 1_000_000


@dataclass
class Written:
    """`realised`: by changed tensor; `files`: weight file -> "rewritten", "linked", "cloned", "copied"."""

    realised: dict[str, Realised] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)


@contextmanager
def same_files(
    source: Checkpoint,
    target: Path,
    changes: Mapping[str, Change],
    *,
    link: Link,
    hard: bool,
    progress: Progress,
) -> Iterator[Written]:
    """Writes the same files with the same headers; only the bytes of changed tensors differ.

    Inside the `with` block all changed tensors are written, and what is known of them can be used while the
    rest is still copied; after it everything is. `hard`: files without changes may share their bytes with
    the source's. Raises OSError, CheckpointError.
    """
    done, bar = Written(), _Bar(progress)
    with _Threads() as threads:
        copies: dict[Future[str], tuple[str, int]] = {}
        rewritten: dict[Future[tuple[str, Realised]], int] = {}
        for name, header in source.headers.items():
            size = header.file.stat().st_size
            inside = [header.tensors[tensor] for tensor in changes if tensor in header.tensors]
            if not inside:
                job = partial(place, header.file, target / name, link, hard=hard)
                copies[threads.copier.submit(job)] = (name, size)
                continue
            cloned = link == "auto" and clone(header.file.resolve(strict=True), target / name)
            if not cloned:
                (target / name).open("xb").close()
            rest = partial(_copy_rest, header, target / name, inside, cloned)
            copies[threads.copier.submit(rest)] = (name, size - sum(entry.nbytes for entry in inside))
            for entry in inside:
                new = threads.computer.submit(_rewrite, target / name, changes[entry.name], entry)
                rewritten[new] = entry.nbytes
        if SINGLE not in source.headers:
            place(source.folder / INDEX, target / INDEX, "copy", hard=False)
        for change in as_completed(rewritten):
            tensor, found = change.result()
            done.realised[tensor] = found
            bar.advance(rewritten[change])
        yield done
        for copy in as_completed(copies):
            name, count = copies[copy]
            done.files[name] = copy.result()
            bar.advance(count)


class _Threads:
    """Copying happens inside the kernel, so it goes on while changed tensors are computed."""

    def __init__(self) -> None:
        self.copier, self.computer = ThreadPoolExecutor(1), ThreadPoolExecutor(max(1, workers() - 1))

    def __enter__(self) -> _Threads:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        for pool in (self.copier, self.computer):
            pool.shutdown(cancel_futures=kind is not None)


def _copy_rest(header: Header, target: Path, changed: list[TensorEntry], cloned: bool) -> str:
    """Everything of a file but its changed tensors."""
    if not cloned:
        with target.open("r+b", buffering=0) as stream:
            at, end = 0, header.file.stat().st_size
            for entry in sorted(changed, key=lambda entry: entry.start):
                copy_range(header.file, stream.fileno(), at, entry.start, at)
                at = entry.end
            copy_range(header.file, stream.fileno(), at, end, at)
    return "rewritten"


def _rewrite(target: Path, change: Change, entry: TensorEntry) -> tuple[str, Realised]:
    """One changed tensor, at the place of the old one."""
    with writing(target, entry.start) as write:
        return entry.name, change.write(entry.dtype, write)


def other_files(
    source: Checkpoint,
    target: Path,
    changes: Mapping[str, Change],
    *,
    dtype: str | None,
    max_shard_size: int | None,
    progress: Progress,
) -> Written:
    """Writes new files: floating tensors in `dtype` (None: their own), files of at most `max_shard_size`.

    Raises OSError, and CheckpointError where a tensor cannot have that dtype.
    """
    kinds = _kinds(source, dtype)
    groups = _groups(source, kinds, max_shard_size)
    done, bar = Written(), _Bar(progress)
    for name, entries in groups.items():
        start = _start(source, entries, kinds)
        (target / name).write_bytes(start)
        at = len(start)
        for entry in entries:
            kind = kinds[entry.name]
            if kind == entry.dtype and entry.name not in changes:
                with (target / name).open("r+b", buffering=0) as stream:
                    copy_range(entry.file, stream.fileno(), entry.start, entry.end, at)
            else:
                with writing(target / name, at) as write:
                    if entry.name in changes:
                        done.realised[entry.name] = changes[entry.name].write(kind, write)
                    else:
                        convert(entry, kind, write)
            at += nbytes(kind, entry.shape)
            bar.advance(entry.nbytes)
        done.files[name] = "rewritten"
    if set(groups) != {SINGLE}:
        _write_index(source, target, groups, kinds)
    return done


def planned_files(
    source: Checkpoint, dtype: str | None, max_shard_size: int | None
) -> dict[str, tuple[int, tuple[str, ...]]]:
    """The files that `other_files` would write: name -> (bytes, tensors). Raises CheckpointError."""
    kinds = _kinds(source, dtype)
    return {
        name: (
            len(_start(source, entries, kinds)) + sum(nbytes(kinds[e.name], e.shape) for e in entries),
            tuple(e.name for e in entries),
        )
        for name, entries in _groups(source, kinds, max_shard_size).items()
    }


def converted(source: Checkpoint, dtype: str) -> set[str]:
    """Tensors that are stored in another type than `dtype` would give them. Raises CheckpointError."""
    return {name for name, kind in _kinds(source, dtype).items() if kind != source.tensors[name].dtype}


def kept_at(entries: Mapping[str, TensorEntry], target: Path) -> dict[str, int]:
    """Makes a file for copies of tensors, without their bytes; name -> where they go. Raises OSError."""
    start = header_bytes({name: (e.dtype, e.shape) for name, e in entries.items()}, {"format": "pt"})
    places, end = {}, len(start)
    for name, entry in entries.items():
        places[name], end = end, end + entry.nbytes
    with target.open("xb", buffering=0) as stream:
        write_at(stream.fileno(), memoryview(start), 0)
        stream.truncate(end)
    return places


def copy_tensors(entries: Mapping[str, TensorEntry], target: Path, places: Mapping[str, int]) -> None:
    """Puts the bytes of tensors into a file that `kept_at` made. Raises OSError."""
    with target.open("r+b", buffering=0) as stream:
        for name, entry in entries.items():
            copy_range(entry.file, stream.fileno(), entry.start, entry.end, places[name])


def _kinds(source: Checkpoint, dtype: str | None) -> dict[str, str]:
    """Each tensor's type in the new files."""
    return {name: _kind(entry, dtype) for name, entry in source.tensors.items()}


def _start(source: Checkpoint, entries: Sequence[TensorEntry], kinds: Mapping[str, str]) -> bytes:
    """The header of a new file."""
    metadata = next((dict(h.metadata) for h in source.headers.values() if h.metadata), {"format": "pt"})
    return header_bytes({entry.name: (kinds[entry.name], entry.shape) for entry in entries}, metadata)


def _kind(entry: TensorEntry, dtype: str | None) -> str:
    if dtype is None or entry.dtype == dtype or is_buffer(entry.name):
        return entry.dtype
    if entry.dtype.startswith(("F8", "F6", "F4")):
        raise CheckpointError(
            f"{entry.name} is quantised ({entry.dtype}), so --dtype cannot convert it", "leave out --dtype"
        )
    return dtype if entry.dtype in FLOATS else entry.dtype


def _groups(source: Checkpoint, kinds: Mapping[str, str], most: int | None) -> dict[str, list[TensorEntry]]:
    """File name -> its tensors, in their old order; the old files where no size was asked for."""
    if most is None:
        return {name: list(header.tensors.values()) for name, header in source.headers.items()}
    parts: list[list[TensorEntry]] = [[]]
    size = 0
    for header in source.headers.values():
        for entry in header.tensors.values():
            more = nbytes(kinds[entry.name], entry.shape)
            if parts[-1] and size + more > most:
                parts.append([])
                size = 0
            parts[-1].append(entry)
            size += more
    if len(parts) == 1:
        return {SINGLE: parts[0]}
    return {f"model-{n:05}-of-{len(parts):05}.safetensors": part for n, part in enumerate(parts, 1)}


def _write_index(
    source: Checkpoint, target: Path, groups: Mapping[str, list[TensorEntry]], kinds: Mapping[str, str]
) -> None:
    old = read_json(source.folder / INDEX).get("metadata") if SINGLE not in source.headers else None
    total = sum(nbytes(kinds[e.name], e.shape) for part in groups.values() for e in part)
    index = {
        "metadata": {**(old if isinstance(old, dict) else {}), "total_size": total},
        "weight_map": {e.name: name for name, part in groups.items() for e in part},
    }
    (target / INDEX).write_text(json.dumps(index, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


class _Bar:
    """Turns bytes into whole megabytes of progress."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._bytes, self._shown = progress, 0, 0

    def advance(self, count: int) -> None:
        self._bytes += count
        done = self._bytes // _MB
        self._progress.advance(done - self._shown)
        self._shown = done
