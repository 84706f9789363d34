"""The progress display: a live one on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from hubedit.cli.output import console
from hubedit.cli.progress import LiveProgress, duration
from hubedit.errors import PatchError
from hubedit.progress import Progress


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_plain_lines_where_there_is_no_terminal() -> None:
    file, clock = io.StringIO(), Clock()
    progress = LiveProgress(console(file), clock=clock)
    assert_type: Progress = progress
    assert assert_type is progress
    with progress:
        progress.start("targets", 500, "facts")
        for _ in range(50):
            clock.now += 1
            progress.advance(2)
        progress.message("[3] careful")
        progress.finish("500 facts")
        progress.start("solve")
        clock.now += 2.5
        progress.finish()
    assert file.getvalue().splitlines() == [
        "... targets (500 facts)",
        "    targets: 60/500 facts, 2.0 facts/s, 3:40 left",
        "[3] careful",
        "ok  targets: 500 facts  50 s",
        "... solve",
        "ok  solve  2.5 s",
    ]


def test_one_is_not_many() -> None:
    file, clock = io.StringIO(), Clock()
    with LiveProgress(console(file), clock=clock) as progress:
        progress.start("asking", 1, "facts")
        clock.now += 40
        progress.advance()
    assert file.getvalue().splitlines()[0] == "... asking (1 fact)"
    assert "1/1 fact" in file.getvalue() and "facts" not in file.getvalue()


def test_the_live_display_leaves_finished_stages_and_the_terminal_as_it_was() -> None:
    file = io.StringIO()
    live = Console(file=file, force_terminal=True, width=100, markup=False, color_system=None)
    with LiveProgress(live) as progress:
        progress.start("read [b]", 10, "rows")
        progress.advance(4)
        progress.message("a notice")
        progress.advance(6)
        progress.finish("10 rows")
        progress.start("unknown")
        progress.advance()
    text = file.getvalue()
    assert "✓ read [b]: 10 rows" in text and "a notice" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is back


def test_the_display_goes_away_when_something_raises() -> None:
    file = io.StringIO()
    live = Console(file=file, force_terminal=True, width=100)

    def work() -> None:
        with LiveProgress(live) as progress:
            progress.start("work", 3)
            raise PatchError("no")

    with pytest.raises(PatchError):
        work()
    text = file.getvalue()
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (9.94, "9.9 s"), (59.4, "59 s"), (59.6, "1:00"), (3725, "1:02:05")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
