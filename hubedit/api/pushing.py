"""`hubedit.push`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from hubedit.api.patches import PatchLike, called, listed
from hubedit.errors import ConfigError
from hubedit.hub.pull import patch_folder
from hubedit.hub.push import Pushed, Where
from hubedit.hub.send import send
from hubedit.model.fetch import is_path
from hubedit.patch import Patch
from hubedit.progress import Progress


def push(
    what: PatchLike | Sequence[PatchLike],
    repo: str,
    *,
    private: bool | None = None,
    merged: bool = False,
    base: str = "",
    with_facts: bool = True,
    revision: str = "",
    message: str = "",
    tag: str = "",
    pr: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Pushed:
    """Pushes a patch, or the folder of a merged model, to the Hub in one commit; private unless it says so.

    `merged`: the patches are merged into their base on the way. Raises HubError before any work where the
    login may not write.
    """
    refs = listed(what)
    where = Where(repo, private=private, revision=revision, pr=pr, tag=tag, message=message)
    with TemporaryDirectory() as place:
        folders, names = [], []
        for number, each in enumerate(refs, 1):
            if isinstance(each, Patch):
                name = repo.rpartition("/")[2]
                each = each.save(Path(place) / str(number) / name, with_facts=with_facts)
            folders.append(_folder(each))
            names.append(called(each))
        return send(
            folders,
            where,
            merged=merged,
            names=names,
            base=base,
            with_facts=with_facts,
            dry_run=dry_run,
            progress=progress,
        )


def _folder(ref: str | Path) -> Path:
    """A local folder, or a patch of the Hub in the cache. Raises ConfigError, HubError."""
    text, path = str(ref), Path(ref).expanduser()
    if is_path(text) or "/" not in text:
        if not path.is_dir():
            raise ConfigError(f"{ref} is no folder", "give a patch or a merged model")
        return path
    return patch_folder(text)
