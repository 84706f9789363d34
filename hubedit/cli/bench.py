"""Run a benchmark: methods, alphas, batch sizes, data sets and seeds into one results file and its tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from hubedit.cli.chat import Chat, ChatOption, SystemOption
from hubedit.cli.output import Output, table
from hubedit.cli.place import check_writable
from hubedit.errors import ConfigError, HubEditError, PartialError

if TYPE_CHECKING:
    from hubedit.bench.run import Done
    from hubedit.bench.tables import Table

# a table with more columns than this is turned round for a terminal
_MOST_COLUMNS = 9
_MOST_REASONS = 10


def bench(
    config: Annotated[
        str | None, Argument(metavar="CONFIG", help="A TOML or JSON file, or a ready one by name (--list).")
    ] = None,
    out: Annotated[
        Path, Option("--out", "-o", help="The folder of results.jsonl, the tables and the figures.")
    ] = Path("hubedit-bench"),
    model: Annotated[
        list[str] | None,
        Option(
            "--model",
            "-m",
            metavar="[NAME=]REF",
            help="Run only this model, from this folder or repo[@revision]; may be repeated.",
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        Option(
            "--data",
            "-d",
            metavar="[NAME=]FILE",
            help="Take the facts or records from here: a file, or a data set by name (docs/facts.md).",
        ),
    ] = None,
    limit: Annotated[int, Option("--limit", min=0, help="At most N edits in a cell; 0: as written.")] = 0,
    retry: Annotated[bool, Option("--retry", help="Run the cells again that failed.")] = False,
    tables_only: Annotated[
        bool, Option("--tables-only", help="Only write tables and figures of the results that are there.")
    ] = False,
    show: Annotated[bool, Option("--list", help="The ready configurations, and what they run.")] = False,
    task_path: Annotated[
        Path | None, Option("--task-path", help="A folder with task definitions (YAML) of your own.")
    ] = None,
    chat: ChatOption = Chat.auto,
    system: SystemOption = "",
    device: Annotated[str, Option("--device", help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    dtype: Annotated[str, Option("--dtype", help="auto, float32, float16 or bfloat16.")] = "auto",
    cache: Annotated[
        Path | None, Option("--cache", help="The cache folder (default: $HUBEDIT_CACHE or ~/.cache/hubedit).")
    ] = None,
    trust_remote_code: Annotated[
        bool, Option("--trust-remote-code", help="Run Python code from the model's repository.")
    ] = False,
    json: Annotated[bool, Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Only warnings, and where the results are.")] = False,
) -> None:
    """Compare methods and settings: many edits measured alike, as tables beside the published ones.

    Finished cells are kept: run the same command again to go on, or several at once to share the work.
    """
    sink = Output(json=json, quiet=quiet)
    if show:
        return _list(sink)
    if config is None:
        raise ConfigError("no configuration was named", "give a file, or a name from hubedit bench --list")

    from hubedit.bench import ready
    from hubedit.bench.change import changed
    from hubedit.bench.write import write

    plan = changed(ready(config), models=model or (), data=data or (), limit=limit)
    done = None
    if not tables_only:
        from hubedit.bench.run import Machine, run
        from hubedit.cache import Cache

        check_writable(out)
        machine = Machine(
            device, dtype, Cache(cache), task_path, trust_remote_code, retry, chat.value, system
        )
        with sink.progress() as progress:
            done = run(plan, out, machine=machine, progress=progress)
    written = write(plan, out, done.keys if done else None)
    for problem in dict.fromkeys((*(done.problems if done else ()), *written.problems)):
        sink.warn(problem)
    for made in written.tables:
        sink.show(_shown(made))
    if not written.tables and done is None:
        raise ConfigError("no cell has a result", "run without --tables-only")
    value = {"out": out, "cells": done, "files": written.files, "tables": written.tables}
    sink.data(value, human=lambda: _summary(done, written.files, out), brief=str(out))
    if done is not None:
        _check(done, out)


def _check(done: Done, out: Path) -> None:
    """Raises PartialError where a cell has failed, in this run or an earlier one, or was left out; another
    error where none has a result."""
    from hubedit.bench.results import Results

    rows = Results(out).read().by_key
    errors = [rows[key]["error"] for key in done.keys if "error" in rows.get(key, {})]
    if done.left_out and not done.keys:
        raise ConfigError("no cell has a result", "the warnings above say why")
    parts = [f"{len(errors)} of {len(done.keys)} cells failed"] if errors else []
    parts += [f"{done.left_out} models or data were left out"] if done.left_out else []
    if parts:
        why = list(dict.fromkeys(f"{error['kind']}: {error['message']}" for error in errors))[:_MOST_REASONS]
        hint = "the same command with --retry runs them again" if errors else "the warnings above say why"
        if len(errors) == len(done.keys):
            raise HubEditError(", ".join(parts), hint, why)
        raise PartialError(f"{', '.join(parts)}; the others are in {out}", hint, why)


def _list(sink: Output) -> None:
    from hubedit.bench import ready, ready_names
    from hubedit.bench.cells import cells

    rows = []
    for name in ready_names():
        plan = ready(name)
        models = ", ".join(m.name for m in plan.models) or "(--model)"
        rows.append((name, plan.title, models, len(cells(plan))))
    columns = ("name", "title", "models", "cells")
    value = [dict(zip(columns, row, strict=True)) for row in rows]
    sink.data(
        value, human=lambda: table(columns, rows, right=("cells",)), brief="\n".join(r[0] for r in rows)
    )


def _shown(made: Table) -> Any:
    """A wide table with a row for each of its columns, which a terminal can show."""
    if len(made.columns) <= _MOST_COLUMNS:
        return table(made.columns, made.rows, title=f"\n{made.title}", right=made.columns[made.heads :])
    first = [" ".join(part for part in row[: made.heads] if part) for row in made.rows]
    kept = range(made.heads, len(made.columns))
    columns = [made.columns[0] if made.heads == 1 else "", *first]
    rows = [(made.columns[n], *(row[n].replace(" (", "\n(") for row in made.rows)) for n in kept]
    unique = [name if columns.index(name) == n else f"{name} ({n})" for n, name in enumerate(columns)]
    return table(unique, rows, title=f"\n{made.title}", right=unique[1:])


def _summary(done: Done | None, files: Sequence[Path], out: Path) -> str:
    from hubedit.report.markup import plural

    lines = [""]
    if done is not None:
        parts = [f"{plural(done.computed, 'cell')} computed"]
        parts += [f"{done.failed} of them failed"] if done.failed else []
        parts += [f"{done.kept} were there"] if done.kept else []
        parts += [f"{done.elsewhere} are being computed by another process"] if done.elsewhere else []
        lines.append(", ".join(parts))
    if files:
        lines.append(f"written to {out}: {', '.join(str(file.relative_to(out)) for file in files)}")
    return "\n".join(lines)
