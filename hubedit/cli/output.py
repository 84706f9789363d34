"""The one sink of a command's output: results on stdout, notes and warnings on stderr.

Three modes. human: tables and text. json: one JSON value on stdout, nothing else there. quiet: only the
brief result on stdout (a path, an identifier), and on stderr only warnings. Both together: the JSON value,
and only warnings. Nothing but JSON data reaches the terminal unescaped (`hubedit.cli.escape`).
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from hubedit.cli.escape import escaped, json_escaped, one_line

if TYPE_CHECKING:
    from hubedit.cli.progress import LiveProgress

Mode = Literal["human", "json", "quiet"]

# how wide a table may get where there is no terminal to ask
_WIDTH = 120


class Output:
    """Made once a command: `out = Output(json=json, quiet=quiet)`."""

    def __init__(
        self,
        *,
        json: bool = False,
        quiet: bool = False,
        stdout: IO[str] | None = None,
        stderr: IO[str] | None = None,
    ) -> None:
        self.silent = quiet
        self.mode: Mode = "json" if json else "quiet" if quiet else "human"
        self.stdout = console(stdout if stdout is not None else sys.stdout)
        self.stderr = console(stderr if stderr is not None else sys.stderr)

    def data(
        self,
        value: Any,
        human: RenderableType | Callable[[], RenderableType] | None = None,
        brief: str | None = None,
    ) -> None:
        """The command's result.

        `value`: what --json prints (dataclasses, paths and tuples are fine). `human`: what a person
        reads, a renderable or a function that makes one (default: the value as JSON). `brief`: the
        line that --quiet prints (default: nothing). Call it once a command.
        """
        if self.mode == "json":
            self.stdout.file.write(as_json(value, self.stdout.file) + "\n")
            self.stdout.file.flush()
        elif self.mode == "quiet":
            if brief is not None:
                self.stdout.print(escaped(brief), soft_wrap=True)
        elif human is None:
            self.stdout.print(as_json(value, self.stdout.file), soft_wrap=True)
        else:
            self.show(human() if callable(human) else human)

    def show(self, renderable: RenderableType) -> None:
        """More for a person to read on stdout; nothing in the other modes. Lines of text are left whole, so
        that a command among them can be copied."""
        if self.mode != "human":
            return
        if isinstance(renderable, str):
            self.stdout.print(escaped(renderable), soft_wrap=True)
        else:
            self.stdout.print(renderable)

    def write(self, text: str) -> None:
        """Text on stdout as it is, without wrapping: a table as CSV or Markdown."""
        self.stdout.file.write(escaped(text))

    def note(self, text: str) -> None:
        """A notice on stderr, one line; not shown with --quiet."""
        if not self.silent:
            self.stderr.print(one_line(text), soft_wrap=True)

    def warn(self, text: str, *more: str) -> None:
        """A warning on stderr, in every mode; `more`: indented lines below it."""
        lines = "\n  ".join(map(one_line, (text, *more)))
        self.stderr.print(Text.assemble(("warning: ", "yellow"), lines), soft_wrap=True)

    def ask(self, question: str) -> str | None:
        """A line of standard input, trimmed, after a question on stderr; None at the end of the input."""
        self.stderr.print(one_line(question), end=" ", soft_wrap=True)
        line = sys.stdin.readline()
        return line.strip() if line else None

    def progress(self) -> LiveProgress:
        """The progress display on stderr: `with out.progress() as progress: ...`."""
        from hubedit.cli.progress import LiveProgress

        return LiveProgress(self.stderr, quiet=self.silent)


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    title: str | None = None,
    right: Iterable[str] = (),
) -> Table:
    """A table for `Output.data`; cells are text (never markup) and fold where the terminal is narrow.

    `right`: the columns to align right. A cell may be a rich renderable; None is an empty cell.
    """
    heading = escaped(title) if title is not None else None
    made = Table(title=heading, title_justify="left", show_edge=False, pad_edge=False, header_style="bold")
    numeric = set(right)
    for name in columns:
        made.add_column(_cell(name), justify="right" if name in numeric else "left", overflow="fold")
    for row in rows:
        made.add_row(*(_cell(value) for value in row))
    return made


def mark(good: bool | None) -> Text:
    """A green "yes", a red "no", or a dash for what was not measured."""
    if good is None:
        return Text("-", style="dim")
    return Text("yes", style="green") if good else Text("no", style="red")


def console(file: IO[str]) -> Console:
    """A console that never reads markup or emoji codes in text, and obeys NO_COLOR and COLUMNS."""
    width = None if file.isatty() or "COLUMNS" in os.environ else _WIDTH
    return _Console(file=file, width=width, markup=False, emoji=False, highlight=False)


class _Console(Console):
    """Escapes what is left in any renderable; rich's own control codes pass."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(escaped(segment.text), segment.style)


def as_json(value: Any, file: IO[str] | None = None) -> str:
    """JSON text of `value`, indented; ASCII only where the stream cannot carry more."""
    encoding = (getattr(file, "encoding", None) or "utf-8").lower()
    ascii_only = not encoding.startswith("utf")
    return json_escaped(json.dumps(plain(value), indent=2, ensure_ascii=ascii_only, allow_nan=False))


def plain(value: Any) -> Any:
    """`value` as JSON data. Numbers that JSON lacks (NaN, infinity) become null."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((plain(item) for item in value), key=str)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, (str, int, bool)):
        return value
    raise TypeError(f"no JSON form for {type(value).__name__}")


def _cell(value: object) -> RenderableType:
    if value is None:
        return ""
    return value if isinstance(value, (Text, Table)) else Text(escaped(str(value)))
