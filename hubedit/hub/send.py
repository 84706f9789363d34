"""One call for `hubedit push`: what the folder holds decides what is pushed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hubedit.errors import HubError
from hubedit.hub.contents import CONFIG
from hubedit.hub.push import Pushed, Target, Where, check_target, push_patch
from hubedit.progress import Progress


def send(
    folder: Path,
    where: Where,
    *,
    merged: bool = False,
    base: str = "",
    with_facts: bool = True,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Pushed:
    """Pushes a patch, a patch merged into its base, or a merged model. Raises HubError, PatchError."""
    patch = (folder / CONFIG).is_file()
    if merged and not patch:
        raise HubError(f"{folder} is no patch, so it cannot be merged", "leave out --merged")
    if not patch and not (folder / "config.json").is_file():
        raise HubError(f"{folder} holds neither a patch nor a model", "give a folder that hubedit wrote")
    target = check_target(where, "patch" if patch and not merged else "model")
    return send_to(
        folder,
        target,
        merged=merged,
        base=base,
        with_facts=with_facts,
        dry_run=dry_run,
        progress=progress,
    )


def send_to(
    folder: Path,
    target: Target,
    *,
    merged: bool = False,
    base: str = "",
    with_facts: bool = True,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Pushed:
    """`send` to a place that was checked already."""
    push: Callable[..., Pushed] = push_patch
    if merged:
        from hubedit.hub.merged import push_merged as push
    elif not (folder / CONFIG).is_file():
        from hubedit.hub.folder import push_model as push
    return push(folder, target, base=base, with_facts=with_facts, dry_run=dry_run, progress=progress)
