"""`hubedit.merge` and `hubedit.revert`; without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hubedit.api.patches import PatchLike, called, listed, opened
from hubedit.checkpoint.merge import Attached, Merge, MergeOptions, MergeResult, check_out
from hubedit.checkpoint.merge import prepare as checked_merge
from hubedit.checkpoint.merge_record import RECORD
from hubedit.checkpoint.revert import Revert, RevertResult
from hubedit.checkpoint.revert import prepare as checked_revert
from hubedit.checkpoint.stack import files_beside
from hubedit.errors import ConfigError
from hubedit.hub.anything import folder_of
from hubedit.hub.pull import patch_folder
from hubedit.model.fetch import find
from hubedit.patch import Patch
from hubedit.patch.compose import decide
from hubedit.patch.conflicts import conflicts
from hubedit.patch.identity import patch_id
from hubedit.progress import Progress, Silent
from hubedit.report.licence import licence_of


def merge(
    patches: PatchLike | Sequence[PatchLike],
    out: str | Path,
    *,
    base: str = "",
    options: MergeOptions | None = None,
    progress: Progress | None = None,
) -> MergeResult:
    """Writes the base with the patches in its weights to `out`, tensor by tensor, without loading the model.

    `base`: a folder or repo[@revision] (default: the one that the first patch names). Raises PatchError,
    CheckpointError, ConfigError; then nothing is at `out`.
    """
    return prepare_merge(patches, out, base=base, options=options, progress=progress).write(progress)


def prepare_merge(
    patches: PatchLike | Sequence[PatchLike],
    out: str | Path,
    *,
    base: str = "",
    options: MergeOptions | None = None,
    progress: Progress | None = None,
) -> Merge:
    """`merge` as far as it is checked and not written: `.plan()` says what `.write()` would do."""
    refs = listed(patches)
    options, out, progress = options or MergeOptions(), Path(out), progress or Silent()
    check_out(out)  # before anything is downloaded, and again when the base is known
    folders = [None if isinstance(each, Patch) else patch_folder(each) for each in refs]
    loaded = [each if isinstance(each, Patch) else opened(each) for each in refs]
    names = [f"patch {n}" if isinstance(each, Patch) else called(each) for n, each in enumerate(refs, 1)]
    ref = base or _base_of(loaded[0])
    # what can be refused before a base is downloaded; looked at again when it is known
    if len({patch_id(each) for each in loaded}) == len(loaded):
        decide(conflicts(loaded), loaded, names, options.on_conflict)
    progress.start("finding the base model")
    source = find(ref, code=True)
    if (source.folder / RECORD).is_file():
        folder_of(ref)  # a merged model at the Hub: its patches come into the same snapshot
    progress.finish(source.ref)
    progress.start("checking the base weights")
    attached = [
        Attached(name, files_beside(folder) if folder is not None else {})
        for name, folder in zip(names, folders, strict=True)
    ]
    made = checked_merge(
        loaded,
        source,
        out,
        options,
        attached=attached,
        licence=licence_of(source.folder),
        card=lambda folder: _card(folder, out.name),
    )
    progress.finish(f"{len(made.assembly.changes)} tensors to change")
    return made


def revert(
    folder: str | Path,
    *,
    last: bool = False,
    patch: str | None = None,
    base: str = "",
    progress: Progress | None = None,
) -> RevertResult:
    """Takes merged patches out of a folder, in place: the base's exact bytes come back, or nothing changes.

    All patches, or the `last` one, or the one whose id begins with `patch`. `base`: a folder or
    repo[@revision] with the base, where no originals were kept. Raises CheckpointError.
    """
    everything = not last and patch is None
    return prepare_revert(folder, last=last, patch=patch, everything=everything, base=base).run(progress)


def prepare_revert(
    folder: str | Path,
    *,
    last: bool = False,
    patch: str | None = None,
    everything: bool = False,
    base: str = "",
) -> Revert:
    """`revert` up to the point where it is checked and not done."""
    made = checked_revert(
        Path(folder).expanduser(),
        last=last,
        patch=patch,
        everything=everything,
        base=find(base) if base else None,
        card=lambda part: _card(part, made.path.name),
    )
    return made


def _base_of(patch: Patch) -> str:
    if not patch.base:
        raise ConfigError("the patch names no base model", "give it with --model")
    return f"{patch.base}@{patch.commit}" if patch.commit else patch.base


def _card(folder: Path, name: str) -> str:
    """README.md of a merged model."""
    from hubedit.report.files import read_source

    return replace(read_source(folder), name=name).card(())
