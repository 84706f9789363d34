"""A folder with a new stack of patches, made from a checkpoint and the base's bytes of what changes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from hubedit import folder
from hubedit.checkpoint.carry import CARD, carry, keep, write_config
from hubedit.checkpoint.delta import Change
from hubedit.checkpoint.merge_record import ORIGINALS, PATCHES, RECORD, Record, Touched, to_text
from hubedit.checkpoint.origin import KEPT, Origin
from hubedit.checkpoint.place import Link
from hubedit.checkpoint.read import CONFIG, INDEX, SINGLE, Checkpoint
from hubedit.checkpoint.stack import Member, factors
from hubedit.checkpoint.tokenizer import TOKENIZER, readable
from hubedit.checkpoint.write import Written, copy_tensors, kept_at, other_files, same_files
from hubedit.errors import CheckpointError
from hubedit.progress import Progress
from hubedit.weights.header import TensorEntry

Card = Callable[[Path], str]
"""Makes a merged model's README.md from the folder with everything else in it: its record, its patches and
what these say of themselves."""

DTYPES: Mapping[str, str] = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_SCRATCH = ".base"


@dataclass
class Done:
    """What was written. `record` is None where the base came back; `left_out`: files not carried over."""

    record: Record | None = None
    files: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Assembly:
    """`source`: the checkpoint with the files' layout; `members`: the whole new stack; `record`: of the new
    stack, None for the base; `changes`: the tensors to write anew; those without factors get the base's
    bytes. `in_place`: the new folder will replace the source's.
    """

    source: Checkpoint
    members: tuple[Member, ...]
    record: Record | None
    changes: Mapping[str, Touched]
    origin: Origin
    in_place: bool = False
    link: Link = "auto"
    hard: bool = True
    dtype: str | None = None
    max_shard_size: int | None = None
    card: Card | None = None

    @property
    def same_files(self) -> bool:
        """Whether the files keep their layout. Where two hold one tensor they cannot: readers would go on to
        find the copy that does not count."""
        return self.dtype is None and self.max_shard_size is None and not self.source.repeated

    def fill(self, part: Path, progress: Progress) -> Done:
        """Writes everything into an empty folder. Raises OSError, CheckpointError, PatchError."""
        scratch = part / _SCRATCH
        wanted = dict(self.changes)
        if self.record is not None and self.record.originals:
            wanted |= self.record.tensors
        base = self.origin.find(wanted, scratch, progress)
        with self._weights(part, base, progress) as written:
            self._check_restored(written)
            done = Done(files=written.files, left_out=self._others(part))
            if self.record is not None:
                done.record = self._realised(self.record, written)
                self._patches(part)
                (part / RECORD).write_text(to_text(done.record.to_json()), encoding="utf-8")
                if self.card is not None:
                    (part / CARD).write_text(self.card(part), encoding="utf-8")
            else:
                for name in (CARD, TOKENIZER):
                    if (file := self.origin.file(name)) is not None:
                        (part / name).unlink(missing_ok=True)
                        shutil.copyfile(file, part / name)
        shutil.rmtree(scratch, ignore_errors=True)
        if self.in_place:
            progress.start("waiting for the disk")
            for name, way in written.files.items():
                if way != "linked":
                    folder.sync_file(part / name)
            progress.finish()
        return done

    @contextmanager
    def _weights(self, part: Path, base: Mapping[str, TensorEntry], progress: Progress) -> Iterator[Written]:
        """Inside the `with` block the changed tensors are written, after it all weights."""
        kept = self._originals(part, base)
        changes: dict[str, Change] = {}
        for name, touched in self.changes.items():
            if self.source.entry(name).shape != touched.shape:
                raise CheckpointError(
                    f"{name} of {self.source.folder} has another shape than its record says"
                )
            changed = factors(self.members, name)
            keep = (part / ORIGINALS / KEPT, kept[name]) if name in kept else None
            changes[name] = Change(base[name], changed, touched.transposed, keep)
        total = sum(header.file.stat().st_size for header in self.source.headers.values())
        progress.start("writing weights", total // 1_000_000, "MB")
        if self.same_files:
            with same_files(
                self.source, part, changes, link=self.link, hard=self.hard, progress=progress
            ) as written:
                yield written
        else:
            yield other_files(
                self.source,
                part,
                changes,
                dtype=DTYPES[self.dtype] if self.dtype else None,
                max_shard_size=self.max_shard_size,
                progress=progress,
            )
        progress.finish(f"{len(changes)} tensors changed")

    def _check_restored(self, written: Written) -> None:
        """What shall be the base's again was verified where it was found, and here as it was written."""
        for name, touched in self.changes.items():
            same = (self.dtype is None) and self.source.entry(name).dtype == touched.base_dtype
            if (
                same
                and not factors(self.members, name)
                and written.realised[name].sha256 != touched.base_sha256
            ):
                raise CheckpointError(f"the base's bytes of {name} changed while they were read")

    def _others(self, part: Path) -> list[str]:
        """All other files; returns those left out."""
        own = {*self.source.headers, SINGLE, INDEX, RECORD}
        if self.record is not None and self._tokenizer(part):
            own.add(TOKENIZER)
        if self.record is not None or self.in_place:
            own |= {PATCHES, ORIGINALS, CARD}
        if self.dtype is not None:
            own.add(CONFIG)
            write_config(self.source.config, part, self.dtype)
        if self.in_place:
            keep(self.source, part, frozenset(own))
            return []
        return carry(self.source, part, frozenset(own))

    def _tokenizer(self, part: Path) -> bool:
        """The tokenizer's configuration, where some readers could not load it as it is."""
        file = self.source.folder / TOKENIZER
        new = readable(file.read_bytes()) if file.is_file() else None
        if new is not None:
            (part / TOKENIZER).write_bytes(new)
        return new is not None

    def _realised(self, record: Record, written: Written) -> Record:
        """The record with what became of the tensors that were written."""
        tensors = dict(record.tensors)
        for name, found in written.realised.items():
            if name in tensors:
                dtype = DTYPES[self.dtype] if self.dtype else self.source.entry(name).dtype
                tensors[name] = tensors[name].became(found, dtype)
        return replace(record, tensors=tensors)

    def _patches(self, part: Path) -> None:
        for number, each in enumerate(self.members, 1):
            own = part / PATCHES / str(number)
            own.mkdir(parents=True)
            each.patch.write(own, files=each.files)

    def _originals(self, part: Path, base: Mapping[str, TensorEntry]) -> dict[str, int]:
        """Where in the file of the originals each changed tensor's bytes go when they are read; the others
        are put there now."""
        if self.record is None or not self.record.originals:
            return {}
        (part / ORIGINALS).mkdir()
        before = self.source.folder / (ORIGINALS if Record.read(self.source.folder) else "")
        for name in (CARD, TOKENIZER):
            if (before / name).is_file():
                shutil.copyfile(before / name, part / ORIGINALS / name)
        entries = {name: base[name] for name in sorted(self.record.tensors)}
        places = kept_at(entries, part / ORIGINALS / KEPT)
        added_to = {name for name in self.changes if factors(self.members, name)}
        others = {name: entry for name, entry in entries.items() if name not in added_to}
        copy_tensors(others, part / ORIGINALS / KEPT, places)
        return {name: places[name] for name in entries if name in added_to}
