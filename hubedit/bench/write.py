"""The tables and figures of a results folder."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from hubedit.bench.configuration import Bench
from hubedit.bench.figures import KINDS, figures
from hubedit.bench.numbers import lines, mixed, outdated
from hubedit.bench.plain import csv_text
from hubedit.bench.results import Results
from hubedit.bench.tables import Table, markdown, tables
from hubedit.errors import HubEditError
from hubedit.folder import write_file


@dataclass(frozen=True)
class Written:
    """`files`: what was written; `problems`: lines of the results file that are none, and how many
    are of other settings."""

    tables: tuple[Table, ...]
    files: tuple[Path, ...]
    problems: tuple[str, ...]


def write(bench: Bench, out: Path, keys: Collection[str] | None = None) -> Written:
    """Writes `tables.md`, `tables.csv` and `figures/*.png` from the results in `out`; nothing where there
    are none. `keys`: of the rows that are of this benchmark's models and data as they are now; without them
    the newest row of every cell counts. Raises HubEditError when the disk refuses."""
    read = Results(out).read()
    found = lines(bench, [row for row in read.rows if keys is None or row["key"] in keys])
    made, problems = tables(bench, found), read.problems
    if old := outdated(bench, read.rows, keys):
        what = "settings" if keys is None else "settings, models or data"
        problems = (*problems, f"rows made with other {what} are left out of the tables: {old}")
    if keys is None and (several := mixed(bench, read.rows)):
        message = f"cells with results of several models or data of one name: {several}; the newest are shown"
        problems = (*problems, f"{message}, and a run without --tables-only shows those of now")
    if not made:
        return Written((), (), problems)
    content = {
        "tables.md": markdown(bench, made).encode(),
        "tables.csv": csv_text(found, bench.tables).encode(),
        **{f"figures/{name}": data for name, data in figures(found).items()},
    }
    try:
        drawn = {path for kind in KINDS for path in (out / "figures").glob(f"{kind}-*.png")}
        for path in drawn - {out / name for name in content}:
            path.unlink(missing_ok=True)  # of cells that are not in these tables
        for name, data in content.items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            write_file(out / name, data)
    except OSError as error:
        raise HubEditError(f"cannot write in {out}: {error.strerror or error}") from error
    return Written(tuple(made), tuple(out / name for name in content), problems)
