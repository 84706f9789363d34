"""Check a facts file, or convert it to hubedit's own format."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hubedit.cli.escape import json_escaped
from hubedit.cli.output import Output, table
from hubedit.cli.place import check_new_file
from hubedit.errors import FactsError
from hubedit.report.markup import plural

if TYPE_CHECKING:
    from hubedit.facts import LoadedFacts

_SHOWN = 5

app = typer.Typer(no_args_is_help=True, help="Check a facts file, or convert it to hubedit's own format.")


class Conflict(StrEnum):
    """What to do with two targets for one prompt."""

    stop = "stop"
    first = "first"
    last = "last"


class Format(StrEnum):
    """What a facts file is written in; the values are `hubedit.facts.FORMATS`."""

    auto = "auto"
    jsonl = "jsonl"
    json = "json"
    csv = "csv"
    knowedit = "knowedit"
    counterfact = "counterfact"
    counterfact_flat = "counterfact-flat"
    mquake = "mquake"
    zsre = "zsre"
    qaedit = "qaedit"
    wikibigedit = "wikibigedit"
    rippleedits = "rippleedits"


FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="A facts file: JSONL, JSON or CSV.")]
FormatOption = Annotated[
    Format, typer.Option("--format", help="The file's format; auto looks at its fields.")
]
LimitOption = Annotated[int, typer.Option("--limit", min=0, help="Only the first N facts; 0 is all.")]
ConflictOption = Annotated[
    Conflict,
    typer.Option("--on-conflict", help="Two targets for one prompt: stop, or keep the first or last."),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Only warnings, and the brief result.")]


@app.command()
def check(
    file: FileArgument,
    model: Annotated[
        str,
        typer.Option(
            "--model", help="Also check against this model's tokenizer (folder or repo[@revision])."
        ),
    ] = "",
    format: FormatOption = Format.auto,
    limit: LimitOption = 0,
    on_conflict: ConflictOption = Conflict.stop,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    quiet: QuietOption = False,
) -> None:
    """Read a facts file and list everything that is wrong with it; exit code 2 when anything is."""
    from hubedit.facts import check_tokens, load_facts
    from hubedit.facts.tokens import joints, load_tokenizer, long_targets

    out = Output(json=json, quiet=quiet)
    try:
        loaded = load_facts(file, format=format.value, limit=limit, on_conflict=on_conflict.value)
        for notice in loaded.notices:
            out.note(f"notice: {notice}")
        tokenizer = load_tokenizer(model) if model else None
        problems = check_tokens(loaded.facts, tokenizer, str(file)) if tokenizer is not None else []
        if problems:
            count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
            raise FactsError(f"{file}: {count} with the tokenizer of {model}", problems=problems)
    except FactsError as error:
        if json:
            # a program that asked for JSON gets the problems there; people read them on stderr
            out.data({"file": file, "ok": False, "error": error.message, "problems": error.problems})
        raise
    summary = _summary(loaded)
    found: list[str] = []
    if tokenizer is not None:
        for look in (joints, long_targets):
            own = look(loaded.facts, tokenizer, str(file))
            for line in own[:_SHOWN]:
                out.note(f"notice: {line}")
            if len(own) > _SHOWN:
                out.note(f"notice: {len(own) - _SHOWN} more like the one before; --json lists all")
            found += own
    notices = [*loaded.notices, *found]
    value = {"file": file, "ok": True, **summary, "notices": notices, "problems": []}
    row = [*list(summary.values())[:-1], loaded.sha256[:12]]
    out.data(value, human=lambda: table([*summary], [row]), brief=loaded.sha256)
    out.note("no problems")


@app.command()
def convert(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE|NAME", help="A facts file, or a data set on the Hub by name (docs/facts.md)."
        ),
    ],
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="OUT.jsonl", help="Where to write; - is stdout.")
    ],
    format: FormatOption = Format.auto,
    limit: LimitOption = 0,
    on_conflict: ConflictOption = Conflict.stop,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT when it exists.")] = False,
    quiet: QuietOption = False,
) -> None:
    """Write any facts file, or a data set by name, as hubedit's own JSONL."""
    from hubedit.evaluate.records import ELSEWHERE, NAMES, located
    from hubedit.facts import dump_facts, load_facts
    from hubedit.folder import write_file

    target = Path(out)
    if out != "-":
        check_new_file(target, force=force)
    sink = Output(quiet=quiet)
    source = located(file) if file in (*NAMES, *ELSEWHERE) else Path(file)
    loaded = load_facts(source, format=format.value, limit=limit, on_conflict=on_conflict.value)
    for notice in loaded.notices:
        sink.note(f"notice: {notice}")
    lines = dump_facts(loaded.facts)
    if out == "-":
        # bytes: facts are UTF-8 whatever the terminal speaks
        sys.stdout.buffer.write(json_escaped(lines).encode())
        sys.stdout.buffer.flush()
        return
    write_file(target, lines.encode())
    sink.data({"out": target, **_summary(loaded)}, human=str(target), brief=str(target))
    sink.note(f"{plural(len(loaded.facts), 'fact')} written")


def _summary(loaded: LoadedFacts) -> dict[str, Any]:
    facts = loaded.facts
    return {
        "format": loaded.format,
        "facts": len(facts),
        "rephrase": sum(len(fact.rephrase) for fact in facts),
        "locality": sum(len(fact.locality) for fact in facts),
        "portability": sum(len(fact.portability) for fact in facts),
        "sha256": loaded.sha256,
    }
