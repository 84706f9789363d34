"""Progress on stderr: a live display on a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from hubedit.cli.escape import one_line
from hubedit.cli.rate import Rate

# seconds between two lines of one stage where there is no terminal
_EVERY = 30.0


class LiveProgress:
    """Draws the stages that the library reports (`hubedit.progress.Progress`).

    Use it as a context manager: leaving it takes the live display off the terminal, also when
    something raises, so that an error message stands on a line of its own.
    """

    def __init__(
        self,
        console: Console,
        *,
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console
        self._quiet = quiet
        self._clock = clock
        self._live: Progress | None = None
        self._task: TaskID | None = None
        self._stage = ""
        self._unit = ""
        self._total: int | None = None
        self._done = 0
        self._rate = Rate(clock)
        self._began = 0.0
        self._said = 0.0

    def __enter__(self) -> LiveProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def start(self, stage: str, total: int | None = None, unit: str = "") -> None:
        """A stage begins; a stage that was not finished ends without a line."""
        self._stop()
        self._stage, self._total, self._unit, self._done = one_line(stage), total, unit, 0
        self._rate = Rate(self._clock)
        self._began = self._said = self._clock()
        if self._quiet:
            return
        if not self._console.is_terminal:
            size = f" ({total:,} {_unit(total, unit)})".replace(" )", ")") if total is not None else ""
            self._say(f"... {self._stage}{size}")
            return
        self._live = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            _Amount(),
            TimeElapsedColumn(),
            _Left(),
            console=self._console,
            transient=True,
        )
        self._task = self._live.add_task(self._stage, total=total, unit=unit, rate=self._rate)
        self._live.start()

    def advance(self, amount: int = 1) -> None:
        """So many units are done."""
        self._done += amount
        self._rate.report(self._done)
        if self._live is not None and self._task is not None:
            self._live.advance(self._task, amount)
        elif not self._quiet and self._stage and self._clock() - self._said >= _EVERY:
            self._said = self._clock()
            self._say(f"    {self._stage}: {self._state()}")

    def finish(self, note: str = "") -> None:
        """The stage is done: it stays on the screen as one line."""
        self._stop()
        if self._stage and not self._quiet:
            took = duration(self._clock() - self._began)
            text = Text.assemble(
                ("✓ ", "green"), self._stage, f": {one_line(note)}" if note else "", (f"  {took}", "dim")
            )
            self._console.print(
                text if self._console.is_terminal else f"ok  {text.plain[2:]}", soft_wrap=True
            )
        self._stage = ""

    def message(self, text: str) -> None:
        """A notice above the display."""
        if not self._quiet:
            self._say(one_line(text))

    def _say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
        self._live = self._task = None

    def _state(self) -> str:
        """`120/500 facts, 4.0 facts/s, 1:35 left`."""
        whole = f"/{self._total:,}" if self._total is not None else ""
        parts = [f"{self._done:,}{whole} {_unit(self._total, self._unit)}".rstrip()]
        if rate := self._rate.per_second:
            parts.append(f"{_number(rate)} {self._unit}/s")
        if left := self._rate.left(self._total):
            parts.append(f"{duration(left)} left")
        return ", ".join(parts)


class _Amount(ProgressColumn):
    """`120/500 facts  4.0/s`"""

    def render(self, task: Task) -> Text:
        if task.total is None and not task.completed:
            return Text("")
        whole = f"/{int(task.total):,}" if task.total is not None else ""
        rate: float | None = task.fields["rate"].per_second
        speed = f"  {_number(rate)}/s" if rate else ""
        unit = _unit(task.total, task.fields["unit"])
        return Text(f"{int(task.completed):,}{whole} {unit}".rstrip() + speed, style="cyan")


class _Left(ProgressColumn):
    """`1:35 left`"""

    def render(self, task: Task) -> Text:
        total = int(task.total) if task.total is not None else None
        left: float | None = task.fields["rate"].left(total)
        return Text(f"{duration(left)} left" if left is not None else "", style="dim")


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3:05`, `1:02:03`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, rest = divmod(whole, 3600)
    minutes, last = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{last:02}" if hours else f"{minutes}:{last:02}"


def _unit(count: float | None, units: str) -> str:
    """The name of the units, for one or for several."""
    return units.removesuffix("s") if count == 1 else units


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"
