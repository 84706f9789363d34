"""Push a patch, or a merged model, to the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from hubedit.cli.output import Output, table

if TYPE_CHECKING:
    from rich.table import Table

    from hubedit.cache import Cache
    from hubedit.hub.push import Pushed, Target
    from hubedit.patch import Patch


def push(
    paths: Annotated[
        list[str],
        Argument(
            metavar="PATCH...|DIR",
            help="A patch (several with --merged, in this order), or the folder of a merged model.",
        ),
    ],
    repo: Annotated[str, Argument(metavar="REPO", help="owner/name, or a name of your own.")],
    private: Annotated[
        bool | None,
        Option("--private/--public", help="Of a new repository.  [default: private]", show_default=False),
    ] = None,
    merged: Annotated[
        bool,
        Option("--merged", help="Merge into the base on the way: a model's repository."),
    ] = False,
    pr: Annotated[bool, Option("--pr", help="Open a pull request.")] = False,
    revision: Annotated[str, Option("--revision", help="A branch, or refs/pr/N to go on with one.")] = "",
    message: Annotated[str, Option("--message", help="First line of the commit.")] = "",
    tag: Annotated[str, Option("--tag", help="Give the commit this name.")] = "",
    base: Annotated[
        str,
        Option(
            "--base",
            help="repo[@revision] of a base that is a local folder here; with --merged also of a merged "
            "model that the patch is added to.",
        ),
    ] = "",
    no_facts: Annotated[
        bool, Option("--no-facts", help="Keep every word of the facts out; their hash stays.")
    ] = False,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Only list copies, uploads and bytes; OWNER/NAME needs no login.")
    ] = False,
    json: Annotated[bool, Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Only warnings, and the address.")] = False,
) -> None:
    """Push a patch, or a merged model, to the Hub: one commit, private unless --public."""
    sink = Output(json=json, quiet=quiet)

    from hubedit.api.pushing import push as run

    hide_progress_bars(quiet or json)
    with sink.progress() as progress:
        done = run(
            paths,
            repo,
            private=private,
            merged=merged,
            base=base,
            with_facts=not no_facts,
            revision=revision,
            message=message,
            tag=tag,
            pr=pr,
            dry_run=dry_run,
            progress=progress,
        )
    show(sink, done)


def show(sink: Output, done: Pushed) -> None:
    """What a push did, or would do."""
    sink.data(done, human=lambda: _table(done), brief=done.url)
    seen = "private" if done.private else "public"
    if done.dry_run:
        sink.note(f"{done.repo} would be {seen}; nothing was pushed: leave out --dry-run to do it")
    elif not done.created:
        sink.note(f"{done.repo} ({seen}) holds all of it already, at commit {done.commit[:8]}: {done.url}")
    else:
        sink.note(f"pushed to {done.repo} ({seen}), commit {done.commit[:8]}: {done.url}")
    for name in done.left_out:
        sink.note(f"not pushed: {name}")
    for note in done.notes:
        sink.warn(note)


def destination(repo: str, kind: str = "patch") -> Target:
    """A repository that the login may write to. Raises HubError."""
    from hubedit.hub.push import Where, check_target

    return check_target(Where(repo), kind)


def send(sink: Output, folder: Path, target: Target, *, with_facts: bool = True) -> None:
    """Pushes what another command has just written. Raises HubError that names the folder and what to do."""
    from hubedit.errors import HubEditError, HubError
    from hubedit.hub.send import send_to

    try:
        with sink.progress() as progress:
            done = send_to(folder, target, with_facts=with_facts, progress=progress)
    except HubEditError as error:
        again = f"hubedit push {folder} {target.repo}{'' if with_facts else ' --no-facts'}"
        raise HubError(
            f"{error.message}; {folder} is complete, it was only not pushed", f"{error.hint}; then: {again}"
        ) from error
    seen = "private" if done.private else "public"
    sink.note(f"pushed to {done.repo} ({seen}), commit {done.commit[:8]}: {done.url}")
    for note in done.notes:
        sink.warn(note)


def shared(sink: Output, ref: str, root: Path | None, on: Patch | None = None) -> Cache:
    """The cache, backed by the repository of statistics that `ref` means. Raises HubError.

    `ref`, `on`: as for `hubedit.hub.share.repository`.
    """
    from hubedit.cache import Cache
    from hubedit.errors import HubError
    from hubedit.hub.share import AUTO, SharedCache, repository

    repo = repository(ref, on)
    if repo:
        try:
            store = SharedCache(repo, root)
        except HubError as error:
            if ref != AUTO:
                raise
            # the user named no repository, and it would only have saved time
            sink.warn(f"{error.message}: statistics are computed instead")
            return Cache(root)
        sink.note(f"statistics: {repo}, where it has them")
        return store
    why = "there is no --on PATCH" if on is None else "the patch of --on names none"
    sink.note(f"statistics: no repository to take them from ({why}), so they are computed")
    return Cache(root)


def hide_progress_bars(wanted: bool) -> None:
    """Keeps the client's own progress bars off the screen."""
    if wanted:
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()


def _table(done: Pushed) -> Table:
    from hubedit.cli.applied import size

    rows: list[tuple[str, str, str]] = []
    rows += [("upload", path, size(count)) for path, count in done.uploaded.items()]
    rows += [("copy on the server", path, size(count)) for path, count in done.copied.items()]
    rows += [("delete", path, "") for path in done.deleted]
    rows += [("as before", path, "") for path in done.kept]
    total = size(sum(done.uploaded.values()))
    return table(("", "file", "size"), [*rows, ("", "to upload", total)], right=("size",))
