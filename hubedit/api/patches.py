"""What may be given for a patch."""

from __future__ import annotations

from pathlib import Path

from hubedit.hub.pull import patch_folder
from hubedit.model.fetch import is_path
from hubedit.patch import Patch
from hubedit.patch.foreign import load_any

PatchLike = Patch | str | Path
"""A patch in memory, the folder of one, or its repository on the Hub, `owner/name[@revision]`."""


def opened(patch: PatchLike) -> Patch:
    """The patch itself, or that of a folder or a repository, also of other tools. Raises PatchError."""
    return patch if isinstance(patch, Patch) else load_any(patch_folder(patch))


def called(ref: str | Path) -> str:
    """How records call a patch: a repository, or the last name of a path."""
    text = str(ref)
    return Path(text).expanduser().resolve().name if is_path(text) else text
