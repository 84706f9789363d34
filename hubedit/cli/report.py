"""Make a patch's card and its HTML report again, or compare several."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from hubedit.cli.output import Output
from hubedit.errors import ConfigError

if TYPE_CHECKING:
    from hubedit.report.comparison import Compared


def report(
    folders: Annotated[
        list[Path], Argument(metavar="DIR...", help="A patch, a merged model, or a report.json.")
    ],
    html: Annotated[
        Path | None,
        Option(
            "--html", metavar="FILE", help="Write only the HTML report, there; the folder stays as it is."
        ),
    ] = None,
    compare: Annotated[
        bool, Option("--compare", help="Put several reports into one table and plot.")
    ] = False,
    out: Annotated[
        Path | None, Option("--out", "-o", metavar="DIR", help="With --compare: where the files go.")
    ] = None,
    csv: Annotated[bool, Option("--csv", help="With --compare: print CSV instead of Markdown.")] = False,
    json: Annotated[bool, Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Only the paths of the files written.")] = False,
) -> None:
    """Make the card, the HTML report and the plots again, or compare reports.

    All of them come from hubedit.json, report.json and facts.jsonl alone; nothing is measured and no model
    is loaded. Changes made by hand to README.md are lost.
    """
    sink = Output(json=json, quiet=quiet)
    if csv and json:
        raise ConfigError("--csv and --json exclude each other", "give one of them")
    if not compare:
        if len(folders) > 1:
            raise ConfigError("several folders were given", "add --compare, or give one")
        if out is not None or csv:
            raise ConfigError("--out and --csv belong to --compare", "give several folders and --compare")
        _one(sink, folders[0], html)
        return
    if html is not None:
        raise ConfigError("--html and --compare exclude each other", "give one of them")
    if len(folders) < 2:
        raise ConfigError("there is nothing to compare", "give two folders or more")

    from hubedit.report.comparison import compare as put_together
    from hubedit.report.files import has_numbers, read_source

    sources = [(place, read_source(place)) for place in folders]
    for place, source in sources:
        if not has_numbers(source):
            sink.warn(f"{place} has no report: nothing was measured")
    compared = put_together([(source.name, source.record, source.measured) for _, source in sources])
    written = _write(compared, out) if out is not None else []
    if csv or json or quiet:  # the Markdown table says so itself
        for remark in compared.remarks:
            sink.warn(remark)
    if csv and not quiet:
        sink.write(compared.csv())
    elif json or quiet:
        sink.data(compared.to_json(), brief="\n".join(map(str, written)) if written else compared.markdown())
    else:
        sink.write(compared.markdown())
    if written:
        sink.note(f"written to {out}")


def _one(sink: Output, folder: Path, html: Path | None) -> None:
    from hubedit.report.files import read_source, rebuild, write

    if html is None:
        names = rebuild(folder)
        files = [folder / name for name in names]
    else:
        if html.is_dir():
            raise ConfigError(f"{html} is a folder", "name a file")
        source = read_source(folder)
        try:
            write(html, source.page(source.plots).encode())
        except OSError as error:
            raise ConfigError(
                f"cannot write {html}: {error.strerror or error}", "choose another place"
            ) from error
        files = [html]
    listed = "\n".join(map(str, files))
    sink.data({"files": files}, human=lambda: listed, brief=listed)


def _write(compared: Compared, out: Path) -> list[Path]:
    """The table as Markdown, CSV and JSON, and the plot. Raises ConfigError."""
    from hubedit.cli.output import as_json
    from hubedit.report.files import write

    text = compared.markdown()
    picture = compared.png()
    if picture is not None:
        text = f"{text}\n![Measures after the edit, with intervals.](compare.png)\n"
    files = {"compare.md": text.encode(), "compare.csv": compared.csv().encode()}
    files["compare.json"] = f"{as_json(compared.to_json())}\n".encode()
    if picture is not None:
        files["compare.png"] = picture
    try:
        for name, data in files.items():
            write(out / name, data)
    except OSError as error:
        raise ConfigError(
            f"cannot write in {out}: {error.strerror or error}", "choose another place"
        ) from error
    return [out / name for name in files]
