"""Patches into a checkpoint: W + B A, written into a new folder that can be taken back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy

import hubedit
from hubedit import folder
from hubedit.checkpoint.assemble import DTYPES, Assembly, Card, Done
from hubedit.checkpoint.merge_record import ORIGINALS, PATCHES, RECORD, Record, vanished
from hubedit.checkpoint.origin import Origin
from hubedit.checkpoint.place import Link
from hubedit.checkpoint.settle import settle
from hubedit.checkpoint.stack import Member, Stack, member
from hubedit.checkpoint.write import converted, planned_files
from hubedit.errors import CheckpointError, ConfigError, PatchError
from hubedit.model.fetch import Source
from hubedit.patch import Patch
from hubedit.patch.compose import OnConflict
from hubedit.patch.doubts import doubts
from hubedit.patch.same_base import is_foreign
from hubedit.progress import Progress, Silent
from hubedit.weights.header import TensorEntry, nbytes


@dataclass(frozen=True)
class MergeResult:
    """`files`: weight file -> "rewritten", "linked", "cloned" or "copied"; `left_out`: files of the base that
    hold other copies of its weights, or are no part of a model; `warnings`: one line each.
    """

    path: Path
    record: Record
    files: Mapping[str, str]
    left_out: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class MergePlan:
    """`tensors`: every tensor whose bytes would change -> the file it would be in, with `dtype` also those
    that are only converted; `rewritten`, `untouched`: the new model's weight files; `rewritten_bytes`,
    `untouched_bytes`: their sizes; `originals_bytes`: of the base's
    tensors that would be kept beside the merge.
    """

    out: Path
    patches: tuple[str, ...]
    tensors: Mapping[str, str]
    rewritten: tuple[str, ...]
    rewritten_bytes: int
    untouched: tuple[str, ...]
    untouched_bytes: int
    originals_bytes: int


@dataclass(frozen=True)
class Merge:
    """A merge that was checked, but not written yet."""

    assembly: Assembly
    out: Path
    warnings: tuple[str, ...]

    def plan(self) -> MergePlan:
        """What `write` would do; nothing is written."""
        source, record = self.assembly.source, self.assembly.record
        assert record is not None
        if self.assembly.same_files:
            place = {name: entry.file.name for name, entry in source.tensors.items()}
            changed = set(self.assembly.changes)
            files = {name: header.file.stat().st_size for name, header in source.headers.items()}
            new = {place[name] for name in changed}
        else:
            kind = DTYPES[self.assembly.dtype] if self.assembly.dtype else None
            planned = planned_files(source, kind, self.assembly.max_shard_size)
            place = {name: file for file, (_, inside) in planned.items() for name in inside}
            changed = set(self.assembly.changes) | (converted(source, kind) if kind else set())
            files = {name: size for name, (size, _) in planned.items()}
            new = set(files)
        tensors = {name: place[name] for name in sorted(changed)}
        rewritten = {name: size for name, size in files.items() if name in new}
        kept = record.tensors if record.originals else {}
        return MergePlan(
            self.out,
            tuple(each.id for each in self.assembly.members),
            tensors,
            tuple(rewritten),
            sum(rewritten.values()),
            tuple(name for name in files if name not in rewritten),
            sum(files.values()) - sum(rewritten.values()),
            sum(nbytes(touched.base_dtype, touched.shape) for touched in kept.values()),
        )

    def write(self, progress: Progress | None = None) -> MergeResult:
        """Writes the merged model; it appears complete or not at all. Raises CheckpointError, PatchError.

        It is not synced, since patches and base can make it again, and nothing is replaced by it.
        """
        done = Done()

        def fill(part: Path) -> None:
            nonlocal done
            done = self.assembly.fill(part, progress or Silent())

        folder.write_folder(
            self.out,
            fill,
            marker=RECORD,
            overwrite=False,
            what="merged model",
            error=CheckpointError,
            sync=False,
        )
        assert done.record is not None
        warnings = [*self.warnings, vanished(done.record)]
        return MergeResult(
            self.out, done.record, done.files, tuple(done.left_out), tuple(line for line in warnings if line)
        )


@dataclass(frozen=True)
class MergeOptions:
    """How a merged model is written."""

    link: Link = "auto"
    """"auto" shares unchanged files (a clone, or a hard link for a local base), "copy" copies them."""
    dtype: str | None = None
    """"float32", "float16" or "bfloat16" for the whole model; None: every tensor keeps its own."""
    max_shard_size: int | None = None
    """In bytes; None: the files are those of the base."""
    keep_originals: bool | None = None
    """Keep the base's bytes of changed tensors in the folder; None: where the base is a local one."""
    on_conflict: OnConflict = "stop"
    """What happens where two patches edit one fact (`hubedit.checkpoint.settle.settle`)."""

    def __post_init__(self) -> None:
        if self.dtype is not None and self.dtype not in DTYPES:
            raise ConfigError(f"unknown dtype {self.dtype!r}", f"one of: {', '.join(DTYPES)}")
        if self.max_shard_size is not None and self.max_shard_size < 1:
            raise ConfigError("the shard size must be at least 1 byte", "such as --max-shard-size 5GB")


@dataclass(frozen=True)
class Attached:
    """What belongs to a patch besides its change. `name`: what the user calls it; `files`: its card, report
    and plots, by name (`hubedit.checkpoint.stack.files_beside`).
    """

    name: str = ""
    files: Mapping[str, bytes] = field(default_factory=dict)


def merge(
    patches: Sequence[Patch],
    base: Source,
    out: Path,
    options: MergeOptions | None = None,
    *,
    attached: Sequence[Attached] = (),
    licence: Mapping[str, Any] | None = None,
    card: Card | None = None,
    progress: Progress | None = None,
) -> MergeResult:
    """Checks everything (see `prepare`) and writes the merged model to `out`."""
    return prepare(patches, base, out, options, attached=attached, licence=licence, card=card).write(progress)


def prepare(
    patches: Sequence[Patch],
    base: Source,
    out: Path,
    options: MergeOptions | None = None,
    *,
    attached: Sequence[Attached] = (),
    licence: Mapping[str, Any] | None = None,
    card: Card | None = None,
) -> Merge:
    """Checks everything about a merge that can be known before it is written.

    `patches` are added in this order, on top of those that `base` has where hubedit merged it already.
    `attached`: one for each patch, or none; `licence`: of the base, for the record; `card`: see `Card`.
    Raises CheckpointError, PatchError, ConfigError.
    """
    options = options or MergeOptions()
    if not patches:
        raise ConfigError("there is no patch to merge", "name one or more patch folders")
    check_out(out, base.folder)
    stack = Stack.open(base.folder)
    # the model may be stored in that type already
    dtype = options.dtype if options.dtype and converted(stack.checkpoint, DTYPES[options.dtype]) else None
    old = stack.record
    if old is None:
        _check_names(base.folder)
    elif old.converted:
        raise CheckpointError(
            f"{base.folder} was merged with --dtype {old.converted}, so it takes no more patches",
            "merge all patches into the base at once",
        )
    stack.check_current()
    new: list[Member] = []
    known: dict[str, TensorEntry] = {}
    tensors = dict(old.tensors) if old else {}
    for number, patch in enumerate(patches):
        more = attached[number] if attached else Attached()
        each = member(stack.checkpoint, patch, more.name, more.files)
        if any(each.id == older.id for older in (*stack.members, *new)):
            raise CheckpointError(f"patch {each.id} is in the stack already", "name every patch once")
        fresh = stack.touch(each)
        known |= {name: stack.checkpoint.entry(name) for name in fresh}
        tensors = {**fresh, **tensors}
        new.append(each)
    settled = settle((*stack.members, *new), len(stack.members), options.on_conflict)
    members = settled.members
    if not members:
        raise PatchError("all facts give way to others, so nothing is left to merge", "see --on-conflict")
    touched_now = {name for each in members for name in each.modules}
    local = old.originals if old else not base.commit
    record = Record(
        old.base if old else base.ref if base.commit else base.folder.resolve().name,
        old.commit if old else base.commit,
        tuple(each.entry() for each in members),
        {name: tensors[name] for name in touched_now},
        dtype or "",
        local if options.keep_originals is None else options.keep_originals,
        old.licence if old else dict(licence or {}),
        {"hubedit": hubedit.__version__, "numpy": numpy.__version__},
    )
    assembly = Assembly(
        stack.checkpoint,
        members,
        record,
        {name: tensors[name] for name in sorted(_changed(stack.members, members, bool(dtype)))},
        Origin(known, base.folder if old else None, None, repositories(record)),
        link=options.link,
        hard=not base.commit,
        dtype=dtype,
        max_shard_size=options.max_shard_size,
        card=card,
    )
    return Merge(assembly, out, (*stack.checkpoint.notes, *_doubts(new), *settled.notices))


def _changed(before: Sequence[Member], after: Sequence[Member], everything: bool) -> set[str]:
    """Tensors whose sum is another one now; with `everything` also those that only get another dtype."""
    ids = {each.id for each in before} & {each.id for each in after}
    differ = [each for each in (*before, *after) if everything or each.id not in ids]
    return {name for each in differ for name in each.modules}


def repositories(record: Record) -> list[tuple[str, str]]:
    """(repository, commit) pairs of the Hub that have the base's tensors: its own, or those of patches."""
    pairs = [(record.base, record.commit), *((entry.base, entry.commit) for entry in record.patches)]
    return list(dict.fromkeys((repo, commit) for repo, commit in pairs if repo and commit))


def _doubts(added: Sequence[Member]) -> Iterator[str]:
    for each in added:
        yield from (f"{each.name or each.id}: {doubt}" for doubt in doubts(each.patch))
        if is_foreign(each.patch):
            yield (
                f"{each.name or each.id} does not say which weights it was made for (it names "
                f"{each.patch.base or 'no base model'}); only its shapes were checked"
            )


def check_out(out: Path, base: Path | None = None) -> None:
    """Raises ConfigError where no model can be written. `base`: its folder, if known."""
    if base is not None and base.resolve() in (out.resolve(), *out.resolve().parents):
        raise ConfigError(f"{out} is inside the base model's folder", "choose another place with --out")
    folder.check_free(out, RECORD, overwrite=False, what="merged model")


def _check_names(base: Path) -> None:
    for name in (PATCHES, ORIGINALS):
        if (base / name).exists():
            raise CheckpointError(
                f"{base} holds {name}/, a name that hubedit uses in merged models", "rename it in the base"
            )
