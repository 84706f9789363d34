"""What a command line says is to be edited: a facts file, facts typed as options, or an older patch's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubedit.errors import ConfigError

if TYPE_CHECKING:
    from hubedit.facts import Fact, LoadedFacts, OnConflict
    from hubedit.model.editable import EditableModel
    from hubedit.patch import Patch
    from hubedit.progress import Progress


@dataclass(frozen=True)
class Wanted:
    """`source`: how messages call the facts; `name`: what the new patch's folder is called after; `repeats`:
    the patch that is made again."""

    loaded: LoadedFacts
    source: str
    name: str
    repeats: Patch | None = None


def read_wanted(
    file: Path | None,
    lines: Sequence[str],
    patch: str,
    format: str,
    on_conflict: OnConflict,
    mended: str = "",
) -> Wanted:
    """Reads the facts. `mended`: the patch whose failed facts are edited again, which needs no others.

    Raises ConfigError unless they come from one place (a patch that keeps its facts to itself needs the file
    beside it), FactsError and PatchError for what is there.
    """
    from hubedit.facts import LoadedFacts, load_facts, typed_facts
    from hubedit.facts.line import WHERE

    if file is not None and lines:
        raise ConfigError("facts from a file and from --fact", "give one of the two")
    if patch:
        if lines:
            raise ConfigError("--fact with --from", "a patch is made again from its own facts")
        return _of_patch(patch, file, format, on_conflict)
    if file is not None:
        return Wanted(load_facts(file, format=format, on_conflict=on_conflict), str(file), file.stem)
    if not lines and mended:
        return Wanted(LoadedFacts((), "", (), ""), mended, f"{Path(mended).name}-again")
    if not lines:
        raise ConfigError("no facts", f'give a facts file, or {WHERE} "The capital of Japan is -> Kyoto"')
    return Wanted(typed_facts(lines), WHERE, "my")


def failed_of(em: EditableModel, older: Patch, chosen: Sequence[Fact], progress: Progress) -> list[Fact]:
    """The facts of the patch `older` that no longer hold and that none of `chosen` edits again."""
    from hubedit.facts.together import again
    from hubedit.report.markup import plural
    from hubedit.standing import standing

    failed = standing(em, older).failed
    progress.message(f"{len(failed)} of {plural(len(older.facts), 'fact')} no longer hold")
    changed = again(failed, chosen)
    return [fact for n, fact in enumerate(failed) if n not in changed]


def check_again(on: str, from_: str, dry_run: bool) -> None:
    """Raises ConfigError where --again stands without its patch, or beside an option that excludes it."""
    hint = "hubedit check PATCH lists the facts that no longer hold"
    if not on:
        raise ConfigError("--again goes with --on PATCH", hint)
    if from_ or dry_run:
        raise ConfigError(f"--again and {'--from' if from_ else '--dry-run'} exclude each other", hint)


def check_alone(preset: str | None, method: str, on: str, given: Mapping[str, Any]) -> None:
    """Raises ConfigError where --from stands beside an option that would change what it repeats."""
    names = [f"--{n.replace('_', '-')}" for n, v in given.items() if v is not None and n != "corpus"]
    names += [n for n, v in (("--preset", preset), ("--method", method), ("--on", on)) if v]
    if names:
        raise ConfigError(f"{names[0]} with --from", "a patch is made again with its own settings")


def _of_patch(ref: str, file: Path | None, format: str, on_conflict: OnConflict) -> Wanted:
    from hubedit.facts import load_facts
    from hubedit.hub import patch_folder
    from hubedit.patch import Patch
    from hubedit.patch.again import check_facts
    from hubedit.patch.value import FACTS

    folder = patch_folder(ref)
    older = Patch.load(folder)
    if file is None and not older.facts:
        raise ConfigError(f"{ref} keeps its facts to itself", "give the facts file as well")
    source = file if file is not None else folder / FACTS
    loaded = load_facts(source, format=format, on_conflict=on_conflict)
    check_facts(older, loaded.sha256, str(source))
    return Wanted(loaded, str(source), f"{folder.resolve().name}-again", older)
