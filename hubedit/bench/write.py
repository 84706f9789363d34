"""The tables and figures of a results folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hubedit.bench.figures import figures
from hubedit.bench.numbers import lines, outdated
from hubedit.bench.plan import Bench
from hubedit.bench.results import Results
from hubedit.bench.tables import Table, csv_text, markdown, tables
from hubedit.errors import HubEditError
from hubedit.folder import write_file


@dataclass(frozen=True)
class Written:
    """`files`: what was written; `problems`: lines of the results file that are none, and how many
    are of other settings."""

    tables: tuple[Table, ...]
    files: tuple[Path, ...]
    problems: tuple[str, ...]


def write(bench: Bench, out: Path) -> Written:
    """Writes `tables.md`, `tables.csv` and `figures/*.png` from the results in `out`; nothing where there
    are none. Raises HubEditError when the disk refuses."""
    read = Results(out).read()
    found = lines(bench, read.rows)
    made, problems = tables(bench, found), read.problems
    if old := outdated(bench, read.rows):
        problems = (*problems, f"rows made with other settings are left out of the tables: {old}")
    if not made:
        return Written((), (), problems)
    content = {
        "tables.md": markdown(bench, made).encode(),
        "tables.csv": csv_text(found, bench.tables).encode(),
        **{f"figures/{name}": data for name, data in figures(found).items()},
    }
    try:
        for name, data in content.items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            write_file(out / name, data)
    except OSError as error:
        raise HubEditError(f"cannot write in {out}: {error.strerror or error}") from error
    return Written(tuple(made), tuple(out / name for name in content), problems)
