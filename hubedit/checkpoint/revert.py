"""Patches out of a merged model: the base's exact bytes come back, in place, in one step."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hubedit import folder
from hubedit.checkpoint.assemble import Assembly, Card, Done
from hubedit.checkpoint.carry import CARD
from hubedit.checkpoint.merge import repositories
from hubedit.checkpoint.merge_record import RECORD, Record, Touched, vanished
from hubedit.checkpoint.origin import Origin, matching
from hubedit.checkpoint.stack import Member, Stack
from hubedit.errors import CheckpointError, ConfigError
from hubedit.model.fetch import Source
from hubedit.progress import Progress, Silent


@dataclass(frozen=True)
class RevertResult:
    """`removed`: ids of the patches taken out; `left`: ids of those that stay, in order; `restored`: tensors
    that are the base's again (in a converted model: its values, in the type of the conversion);
    `recomputed`: tensors that other patches still change; `record` is None where the weights are the base's
    again.
    """

    path: Path
    removed: tuple[str, ...]
    left: tuple[str, ...]
    restored: tuple[str, ...]
    recomputed: tuple[str, ...]
    record: Record | None
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Revert:
    """A revert that was checked, but not done yet."""

    path: Path
    removed: tuple[Member, ...]
    assembly: Assembly
    found: Record

    @property
    def restored(self) -> tuple[str, ...]:
        """Tensors that get the base's bytes."""
        return tuple(
            n for n in self.assembly.changes if not any(n in m.modules for m in self.assembly.members)
        )

    def run(self, progress: Progress | None = None) -> RevertResult:
        """Replaces the folder; at every moment it is the old or the new model. Raises CheckpointError."""
        done = Done()

        def fill(part: Path) -> None:
            nonlocal done
            done = self.assembly.fill(part, progress or Silent())

        with folder.alone(self.path, error=CheckpointError):
            if Record.read(self.path) != self.found:
                raise CheckpointError(f"{self.path} was changed meanwhile", "run the command again")
            folder.write_folder(
                self.path, fill, marker=RECORD, overwrite=True, what="merged model", error=CheckpointError
            )
        restored = self.restored
        lost = vanished(done.record) if done.record else ""
        kept = self.found.originals or self.assembly.origin.given is not None
        if done.record is None and not kept and not (self.path / CARD).exists():
            lost = f"the base's {CARD} is not in the Hub's cache, so {self.path} has none; copy it there"
        return RevertResult(
            self.path,
            tuple(each.id for each in self.removed),
            tuple(each.id for each in self.assembly.members),
            restored,
            tuple(name for name in self.assembly.changes if name not in restored),
            done.record,
            (lost,) if lost else (),
        )


def prepare(
    path: Path,
    *,
    last: bool = False,
    patch: str | None = None,
    everything: bool = False,
    base: Source | None = None,
    card: Card | None = None,
) -> Revert:
    """Finds what to take out of a merged model, and checks that the folder is what the merge wrote.

    One of `last` (the newest patch), `patch` (an id, or its beginning) and `everything`; with a single
    patch in the stack none is needed. `base`: a model to take the base's bytes from; one with other bytes is
    refused, also where the originals were kept. A merge that converted the whole model keeps at least one
    patch. Raises CheckpointError, PatchError, ConfigError.
    """
    check_choice(last, patch, everything)
    path = Path(os.path.realpath(path))
    try:
        folder.recover(path, RECORD)
    except OSError as error:
        raise CheckpointError(f"{path.parent} cannot be read: {error.strerror}") from error
    if not path.is_dir():
        raise CheckpointError(f"no such folder: {path}", "give the folder of a merged model")
    stack = Stack.open(path)
    if stack.record is None:
        raise CheckpointError(f"{path} holds no merged patches (no {RECORD} of a merge)", "nothing to revert")
    for header in stack.checkpoint.headers.values():
        if header.file.is_symlink():
            raise CheckpointError(
                f"{header.file} is a link, as in the Hub's cache, which is never changed",
                f"copy the folder first: cp -rL {path} my-copy",
            )
    stack.check_current()
    removed = choose(stack, last, patch, everything)
    left = tuple(each for each in stack.members if each not in removed)
    if stack.record.converted and not left:
        # the other tensors and config.json were converted too, and what they were is not in the folder
        raise CheckpointError(
            f"{path} was merged with --dtype {stack.record.converted}, so it cannot become the base again",
            f"use the base itself ({base.ref if base else _base_name(stack.record)}); nothing was changed",
        )
    changes = {
        name: touched
        for name, touched in sorted(stack.record.tensors.items())
        if any(name in each.modules for each in removed)
    }
    return Revert(
        path,
        removed,
        Assembly(
            stack.checkpoint,
            left,
            remaining(stack.record, left),
            changes,
            Origin(
                matching(base.folder, base.ref, changes) if base else {},
                path,
                base.folder if base else None,
                repositories(stack.record),
            ),
            in_place=True,
            card=card,
        ),
        stack.record,
    )


def revert(
    path: Path,
    *,
    last: bool = False,
    patch: str | None = None,
    everything: bool = False,
    base: Source | None = None,
    card: Card | None = None,
    progress: Progress | None = None,
) -> RevertResult:
    """Checks everything (see `prepare`) and replaces the folder."""
    return prepare(path, last=last, patch=patch, everything=everything, base=base, card=card).run(progress)


def _base_name(record: Record) -> str:
    return f"{record.base}@{record.commit}" if record.commit else record.base


def check_choice(last: bool, patch: str | None, everything: bool) -> None:
    """Raises ConfigError for more than one answer to which patches."""
    if sum((last, patch is not None, everything)) > 1:
        raise ConfigError("--last, --patch and --all exclude each other", "give one of them")


def choose(stack: Stack, last: bool, patch: str | None, everything: bool) -> tuple[Member, ...]:
    """The patches to take out. Raises ConfigError where it is not clear which."""
    members = stack.members
    if everything or (len(members) == 1 and patch is None):
        return members
    if last:
        return members[-1:]
    listed = ", ".join(each.id for each in members)
    if patch is None:
        raise ConfigError(
            f"the stack has {len(members)} patches: {listed}", "give --last, --patch ID or --all"
        )
    wanted = patch.lower()
    # `inspect` prints the whole hash, the stack its beginning
    found = [each for each in members if patch and (each.id.startswith(wanted) or wanted.startswith(each.id))]
    if len(found) != 1:
        what = "no patch" if not found else "more than one patch"
        raise ConfigError(f"{what} of the stack is called {patch!r}", f"its patches: {listed}")
    return (found[0],)


def remaining(old: Record, left: Sequence[Member]) -> Record | None:
    """The record of the patches that stay; None where none does."""
    if not left:
        return None
    tensors: dict[str, Touched] = {
        name: touched for name, touched in old.tensors.items() if any(name in m.modules for m in left)
    }
    return replace(old, patches=tuple(each.entry() for each in left), tensors=tensors)
