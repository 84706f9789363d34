"""What may be given for a patch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from hubedit.errors import PatchError, kind
from hubedit.hub.pull import patch_folder
from hubedit.model.fetch import is_path
from hubedit.patch import Patch
from hubedit.patch.foreign import load_any

PatchLike = Patch | str | Path
"""A patch in memory, the folder of one, or its repository on the Hub, `owner/name[@revision]`."""


def opened(patch: PatchLike) -> Patch:
    """The patch itself, or that of a folder or a repository, also of other tools. Raises PatchError."""
    check_patch(patch)
    return patch if isinstance(patch, Patch) else load_any(patch_folder(patch))


def listed(patches: PatchLike | Sequence[PatchLike]) -> list[PatchLike]:
    """One patch or several, as a list. Raises PatchError for none, and for anything else."""
    found = list(patches) if isinstance(patches, Iterable) and not isinstance(patches, str) else [patches]
    if not found:
        raise PatchError("no patch was given", "give one, or a list of them")
    for each in found:
        check_patch(each)
    return found


def check_patch(patch: PatchLike) -> None:
    """Raises PatchError for what stands for no patch."""
    if not isinstance(patch, (Patch, str, Path)):
        raise PatchError(
            f"a patch is expected, and this is {kind(patch)}",
            "give the patch that hubedit.edit made, its folder, or its repository owner/name",
        )


def called(ref: str | Path) -> str:
    """How records call a patch: a repository, or the last name of a path."""
    text = str(ref)
    return Path(text).expanduser().resolve().name if is_path(text) else text
