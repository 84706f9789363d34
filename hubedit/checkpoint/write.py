"""The weight files of a new folder: untouched ones linked or copied, touched tensors rewritten in between."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from hubedit.checkpoint.delta import FLOATS, Change, Realised, convert
from hubedit.checkpoint.header import Header, TensorEntry, header_bytes, nbytes
from hubedit.checkpoint.place import Link, clone, copy_range, place, write_at
from hubedit.checkpoint.read import INDEX, SINGLE, Checkpoint, read_json
from hubedit.errors import CheckpointError
from hubedit.progress import Progress

_MB = 1_000_000


@dataclass
class Written:
    """`realised`: by changed tensor; `files`: weight file -> "rewritten", "linked", "cloned", "copied"."""

    realised: dict[str, Realised] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)


def same_files(
    source: Checkpoint,
    target: Path,
    changes: Mapping[str, Change],
    *,
    link: Link,
    hard: bool,
    progress: Progress,
) -> Written:
    """Writes the same files with the same headers; only the bytes of changed tensors differ.

    `hard`: files without changes may share their bytes with the source's. Raises OSError, CheckpointError.
    """
    done, bar = Written(), _Bar(progress)
    # copying happens inside the kernel, so it goes on while the changed tensors are computed
    with ThreadPoolExecutor(1) as copier:
        try:
            copies: list[tuple[str, Future[str]]] = []
            computed: list[_Rewrite] = []
            for name, header in source.headers.items():
                inside = [header.tensors[tensor] for tensor in changes if tensor in header.tensors]
                job: Callable[[], str]
                if not inside:
                    job = partial(place, header.file, target / name, link, hard=hard)
                else:
                    computed.append(_Rewrite(header, target / name, inside, link))
                    job = computed[-1].copy
                copies.append((name, copier.submit(job)))
            for rewrite in computed:
                done.realised |= rewrite.compute(changes)
            for name, copy in copies:
                done.files[name] = copy.result()
                bar.advance(source.headers[name].file.stat().st_size)
        except BaseException:
            copier.shutdown(cancel_futures=True)
            raise
    if SINGLE not in source.headers:
        place(source.folder / INDEX, target / INDEX, "copy", hard=False)
    return done


class _Rewrite:
    """One file with changed tensors. The two methods write different bytes, and may run at the same time."""

    def __init__(self, header: Header, target: Path, changed: list[TensorEntry], link: Link) -> None:
        self._source, self._target = header.file.resolve(strict=True), target
        self._changed = sorted(changed, key=lambda entry: entry.start)
        self._cloned = link == "auto" and clone(self._source, target)
        if not self._cloned:
            target.open("xb").close()

    def copy(self) -> str:
        """Everything but the changed tensors."""
        if not self._cloned:
            with self._target.open("r+b", buffering=0) as stream:
                at = 0
                for entry in self._changed:
                    copy_range(self._source, stream.fileno(), at, entry.start, at)
                    at = entry.end
                copy_range(self._source, stream.fileno(), at, self._source.stat().st_size, at)
        return "rewritten"

    def compute(self, changes: Mapping[str, Change]) -> dict[str, Realised]:
        """The changed tensors."""
        with self._target.open("r+b", buffering=0) as stream:
            handle = stream.fileno()
            return {e.name: changes[e.name].write(e.dtype, _writer(handle, e.start)) for e in self._changed}


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
        with (target / name).open("xb", buffering=0) as stream:
            handle, at = stream.fileno(), len(start)
            write_at(handle, memoryview(start), 0)
            for entry in entries:
                kind = kinds[entry.name]
                if entry.name in changes:
                    done.realised[entry.name] = changes[entry.name].write(kind, _writer(handle, at))
                elif kind == entry.dtype:
                    copy_range(entry.file, handle, entry.start, entry.end, at)
                else:
                    convert(entry, kind, _writer(handle, at))
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


def write_tensors(entries: Mapping[str, TensorEntry], target: Path) -> None:
    """One file with exact copies of tensors. Raises OSError."""
    start = header_bytes({name: (e.dtype, e.shape) for name, e in entries.items()}, {"format": "pt"})
    with target.open("xb", buffering=0) as stream:
        write_at(stream.fileno(), memoryview(start), 0)
        at = len(start)
        for entry in entries.values():
            copy_range(entry.file, stream.fileno(), entry.start, entry.end, at)
            at += entry.nbytes


def _kinds(source: Checkpoint, dtype: str | None) -> dict[str, str]:
    """Each tensor's type in the new files."""
    return {name: _kind(entry, dtype) for name, entry in source.tensors.items()}


def _start(source: Checkpoint, entries: Sequence[TensorEntry], kinds: Mapping[str, str]) -> bytes:
    """The header of a new file."""
    metadata = next((dict(h.metadata) for h in source.headers.values() if h.metadata), {"format": "pt"})
    return header_bytes({entry.name: (kinds[entry.name], entry.shape) for entry in entries}, metadata)


def _kind(entry: TensorEntry, dtype: str | None) -> str:
    if dtype is None or entry.dtype == dtype:
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


def _writer(handle: int, start: int) -> Callable[[memoryview], None]:
    """Writes one piece after the other from an offset on."""
    at = start

    def write(data: memoryview) -> None:
        nonlocal at
        write_at(handle, data, at)
        at += len(data)

    return write


class _Bar:
    """Turns bytes into whole megabytes of progress."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._bytes, self._shown = progress, 0, 0

    def advance(self, count: int) -> None:
        self._bytes += count
        done = self._bytes // _MB
        self._progress.advance(done - self._shown)
        self._shown = done
