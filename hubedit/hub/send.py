"""One call for `hubedit push`: what the folder holds decides what is pushed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from hubedit.errors import HubError
from hubedit.hub.contents import CONFIG
from hubedit.hub.push import Pushed, Target, Where, check_target, push_patch
from hubedit.progress import Progress


def send(
    folder: Path | Sequence[Path],
    where: Where,
    *,
    merged: bool = False,
    names: Sequence[str] = (),
    base: str = "",
    with_facts: bool = True,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Pushed:
    """Pushes a patch, patches merged into their base, or a merged model. Raises HubError, PatchError.

    `folder`: several only with `merged`; they are added in that order. `names`: what records call them.
    """
    folders = [folder] if isinstance(folder, Path) else list(folder)
    if len(folders) != 1 and not merged:
        raise HubError("several patches were given", "merge them into one model: --merged")
    patches = [(each / CONFIG).is_file() for each in folders]
    for each, patch in zip(folders, patches, strict=True):
        if merged and not patch:
            raise HubError(f"{each} is no patch, so it cannot be merged", "leave out --merged")
        if not patch and not (each / "config.json").is_file():
            raise HubError(f"{each} holds neither a patch nor a model", "give a folder that hubedit wrote")
    target = check_target(where, "patch" if all(patches) and not merged else "model", dry_run=dry_run)
    if merged:
        from hubedit.hub.merged import push_merged

        return push_merged(
            folders,
            target,
            names=names,
            base=base,
            with_facts=with_facts,
            dry_run=dry_run,
            progress=progress,
        )
    return send_to(folders[0], target, base=base, with_facts=with_facts, dry_run=dry_run, progress=progress)


def send_to(
    folder: Path,
    target: Target,
    *,
    base: str = "",
    with_facts: bool = True,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Pushed:
    """A patch or a merged model, to a place that was checked already."""
    push: Callable[..., Pushed] = push_patch
    if not (folder / CONFIG).is_file():
        from hubedit.hub.folder import push_model as push
    return push(folder, target, base=base, with_facts=with_facts, dry_run=dry_run, progress=progress)
