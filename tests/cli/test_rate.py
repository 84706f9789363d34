"""Rates and time left: of work that was done, smoothed, and only once enough of it is known."""

from __future__ import annotations

import io
from collections.abc import Iterable

import pytest

from hubedit.cli.output import console
from hubedit.cli.progress import LiveProgress
from hubedit.cli.rate import Rate


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def after(reports: Iterable[tuple[float, int]]) -> tuple[Rate, Clock]:
    """A rate that has heard of `done` units at each time."""
    clock = Clock()
    rate = Rate(clock)
    for at, done in reports:
        clock.now = 100.0 + at
        rate.report(done)
    return rate, clock


def test_a_first_batch_says_nothing_of_the_rest() -> None:
    rate, clock = after([(85, 128)])
    assert rate.per_second is None and rate.left(20_480) is None
    clock.now += 60
    assert rate.left(20_480) is None


def test_a_slow_start_and_what_was_done_before_are_left_out() -> None:
    rate, _ = after([(85, 128), *((85 + 1.5 * n, 128 + 128 * n) for n in range(1, 8))])
    assert rate.per_second == pytest.approx(128 / 1.5)
    assert rate.left(20_480) == pytest.approx((20_480 - 1024) * 1.5 / 128)
    resumed, _ = after([(0, 15_000), *((float(n), 15_000 + n) for n in range(1, 9))])
    assert resumed.per_second == pytest.approx(1)


def test_reports_of_one_batch_count_as_one() -> None:
    bursts = [(75.0 * k + 0.001 * n, 16 * (k - 1) + n) for k in (1, 2, 3) for n in range(1, 17)]
    rate, clock = after(bursts)
    assert rate.per_second == pytest.approx(16 / 75, rel=0.01)
    clock.now += 30
    assert rate.left(64) == pytest.approx(75 - 30, abs=1)


def test_nothing_is_said_in_the_first_seconds_nor_of_an_unknown_total() -> None:
    rate, clock = after([(0, 1), (1, 2), (2, 3), (3, 4)])
    assert rate.per_second == pytest.approx(1) and rate.left(1000) is None
    clock.now += 3
    rate.report(7)
    assert rate.left(1000) == pytest.approx(993)
    assert rate.left(None) is None


def test_the_rate_follows_a_change() -> None:
    slow = [(float(n), n) for n in range(60)]
    rate, _ = after([*slow, *((60.0 + n, 60 + 10 * n) for n in range(120))])
    assert 9 < (rate.per_second or 0) <= 10


def test_a_stage_that_takes_longer_than_expected_promises_nothing() -> None:
    rate, clock = after([(float(n), n) for n in range(10)])
    clock.now += 100
    assert rate.left(20) is None


def test_lines_show_no_time_left_after_one_batch() -> None:
    file, clock = io.StringIO(), Clock()
    with LiveProgress(console(file), clock=clock) as progress:
        progress.start("generating text", 20_480, "tokens")
        clock.now += 85
        progress.advance(128)
        for _ in range(40):
            clock.now += 1
            progress.advance(100)
        progress.finish()
    lines = file.getvalue().splitlines()
    assert lines[1] == "    generating text: 128/20,480 tokens"
    assert lines[2] == "    generating text: 3,128/20,480 tokens, 100 tokens/s, 2:54 left"
