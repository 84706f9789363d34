"""Download a patch or a model from the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from hubedit.cli.output import Output


def pull(
    repo: Annotated[str, Argument(metavar="REPO[@REVISION]", help="Of a patch or a model.")],
    out: Annotated[
        Path | None, Option("--out", "-o", help="A folder (default: the cache of the Hub's client).")
    ] = None,
    force: Annotated[bool, Option("--force", help="Replace an older patch at --out.")] = False,
    json: Annotated[bool, Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Only the path.")] = False,
) -> None:
    """Download a patch or a model; prints where it is."""
    sink = Output(json=json, quiet=quiet)

    from hubedit.cli.push import hide_progress_bars
    from hubedit.hub.pull import pull as download

    hide_progress_bars(quiet or json)
    found = download(repo, out, overwrite=force)
    sink.data(found, human=str(found.path), brief=str(found.path))
    sink.note(f"{found.kind} {found.repo} at commit {found.commit}")
