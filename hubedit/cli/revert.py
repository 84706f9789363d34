"""Take merged patches out of a model again; the base's exact bytes come back."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option, confirm

from hubedit.cli.escape import one_line
from hubedit.cli.output import Output
from hubedit.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from hubedit.checkpoint.revert import RevertResult


def revert(
    model: Annotated[
        str,
        Argument(
            metavar="DIR|REPO",
            help="A merged model: a folder, changed in place, or a repository, which gets a new commit; or a "
            "patch that was made in several steps, a folder.",
        ),
    ],
    last: Annotated[bool, Option("--last", help="Take out the newest patch, or step.")] = False,
    patch: Annotated[
        str | None, Option("--patch", help="Take out the patch, or step, with this id, or its beginning.")
    ] = None,
    fact: Annotated[
        list[str] | None,
        Option("--fact", metavar="ID|PROMPT", help="Take this fact out of a patch; may be given again."),
    ] = None,
    out: Annotated[
        Path | None, Option("--out", "-o", help="Where the smaller patch goes (default: in place).")
    ] = None,
    everything: Annotated[bool, Option("--all", help="Take out all patches.")] = False,
    base: Annotated[
        str | None,
        Option("--base", help="A folder or repo[@revision] with the base, where no originals were kept."),
    ] = None,
    yes: Annotated[bool, Option("--yes", "-y", help="Do not ask.")] = False,
    json: Annotated[bool, Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Only warnings, and the path.")] = False,
) -> None:
    """Take merged patches out of a model again; the base's exact bytes come back, or nothing changes."""
    sink = Output(json=json, quiet=quiet)

    from hubedit.cli.merge import alone_in_a_thread, card, realised

    alone_in_a_thread()
    from hubedit.checkpoint.revert import prepare
    from hubedit.model.fetch import find, is_path

    if not is_path(model):
        inside = Path(model).parent.is_dir() and Path(model).parent != Path()
        if inside or "/" not in model.partition("@")[0]:
            raise ConfigError(f"no such folder: {model}", "check the path; a repository is owner/name")
        if base is not None:
            raise ConfigError("--base is for a folder", "a repository names its base itself: leave it out")
        _revert_repo(sink, model, yes, last=last, patch=patch, everything=everything)
        return
    folder = Path(model).expanduser()
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        if everything or base is not None:
            raise ConfigError(
                f"{folder} is a patch", "give --last, --patch ID or --fact ID; no --all, no --base"
            )
        from hubedit.cli.withdraw import withdraw

        if out is None and not yes:
            _ask(f"Take that out of {folder}?", f"{folder} would be changed in place")
        withdraw(sink, folder, out, last=last, step=patch, facts=fact or [])
        return
    if fact or out is not None:
        option = "--fact" if fact else "--out"
        raise ConfigError(
            f"{option} is for a patch, and {folder} is none", "a merged model is given whole patches"
        )
    source = find(base) if base is not None else None
    made = prepare(
        folder,
        last=last,
        patch=patch,
        everything=everything,
        base=source,
        card=lambda place: card(place, made.path.name),
    )
    if not yes:
        names = ", ".join(f"{each.id} ({each.name})" if each.name else each.id for each in made.removed)
        _ask(f"Take {names} out of {folder}?", f"{folder} would be changed in place")
    with sink.progress() as progress:
        done = made.run(progress)
    sink.data(done, human=lambda: _table(done), brief=str(folder))
    if done.record is not None:
        sink.show(realised(done.record))
    for line in done.warnings:
        sink.warn(line)
    if _inside(made.path):
        sink.note(f"your shell is in the old folder, which is gone: cd {made.path}")


def _revert_repo(
    sink: Output, ref: str, yes: bool, *, last: bool, patch: str | None, everything: bool
) -> None:
    """A new commit without the patches; the history keeps the merged state."""
    from hubedit.cli.push import show, silence
    from hubedit.hub.push import Where
    from hubedit.hub.revert import check_merged, revert_repo

    repo, _, revision = ref.partition("@")
    where = Where(repo, revision=revision)
    if not yes:
        check_merged(where)
        which = "the newest patch" if last else "all patches" if patch is None else f"patch {patch}"
        _ask(f"Make a commit that takes {which} out of {ref}?", f"{ref} would be changed")
    silence(True)
    with sink.progress() as progress:
        done = revert_repo(where, last=last, patch=patch, everything=everything, progress=progress)
    show(sink, done)


def _ask(question: str, otherwise: str) -> None:
    if not sys.stdin.isatty():
        raise ConfigError(otherwise, "add --yes")
    confirm(one_line(question), abort=True, err=True)


def _table(done: RevertResult) -> Table:
    from hubedit.cli.applied import table_of

    rows = [
        ("taken out", ", ".join(done.removed)),
        ("left", ", ".join(done.left) or "none: the weights are the base's"),
    ]
    kind = done.record.converted if done.record else ""
    how = f"converted to {kind}" if kind else "each verified by its sha256"
    if done.restored:
        rows.append(("tensors of the base again", f"{len(done.restored)}, {how}"))
    if done.recomputed:
        rows.append(("tensors recomputed from the base", str(len(done.recomputed))))
    return table_of(rows)


def _inside(path: Path) -> bool:
    """Whether this process stands in the folder that was replaced."""
    try:
        return Path(os.getcwd()).is_relative_to(path)
    except FileNotFoundError:
        return True
