"""How fast a stage goes on and how long it still takes, from reports of work done."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import exp

# seconds: reports so close are one batch's; from the first report until time left is shown; of the smoothing
_BATCH, _WAIT, _SPAN = 0.5, 5.0, 30.0


class Rate:
    """Smoothed units a second.

    The time up to the first report, and the work in it, are left out: a first batch loads, compiles and
    allocates, and what an earlier run had done is reported at once.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first = self._opened = 0.0
        self._before: tuple[float, int] | None = None
        self._now: tuple[float, int] | None = None
        self._smooth: float | None = None

    def report(self, done: int) -> None:
        """So many units are done in all."""
        at = self._clock()
        if self._now is None:
            self._first = self._opened = at
        elif at - self._opened >= _BATCH:
            self._smooth, self._before, self._opened = self.per_second, self._now, at
        self._now = (at, done)

    @property
    def per_second(self) -> float | None:
        """Units a second; None before the second batch is reported."""
        if self._before is None or self._now is None:
            return None
        seconds = self._now[0] - self._before[0]
        if seconds <= 0:
            return self._smooth
        own = (self._now[1] - self._before[1]) / seconds
        if self._smooth is None:
            return own
        return self._smooth + (1 - exp(-seconds / _SPAN)) * (own - self._smooth)

    def left(self, total: int | None) -> float | None:
        """Seconds until `total` units are done; None where too little is known to say."""
        rate, at = self.per_second, self._clock()
        if total is None or not rate or self._now is None or at - self._first < _WAIT:
            return None
        left = (total - self._now[1]) / rate - (at - self._now[0])
        return left if left > 0 else None
