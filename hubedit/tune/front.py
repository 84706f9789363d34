"""What came of the trials: the front of those that no other beats, and what is chosen of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hubedit.config import EditConfig
from hubedit.tune.cases import Cases
from hubedit.tune.space import Point
from hubedit.tune.trial import Score

PREFER = {"success": 4.0, "balanced": 1.0, "locality": 0.25}
"""Weight of success against locality when a point of the front is chosen, by preference."""


@dataclass(frozen=True)
class Tried:
    """One finished trial; with `point` None the default, number -1."""

    number: int
    point: Point | None
    score: Score

    @property
    def name(self) -> int | str:
        """As in what is written and printed."""
        return self.number if self.point is not None else "default"

    def settings(self) -> dict[str, Any]:
        """The fields of EditConfig that it fixes, as JSON data; none of the default's."""
        return self.point.settings() if self.point is not None else {}

    def config(self, base: EditConfig) -> EditConfig:
        """`base` with these settings."""
        return self.point.config(base) if self.point is not None else base


@dataclass(frozen=True)
class Tuned:
    """`trials`: all that are in the journal; `default`: what hubedit does by itself on the same facts;
    `front`: those of both that no other beats in both objectives, the most successful first; `chosen`: one of
    them for each preference; `check`: on facts that no trial saw, by preference and as "default"."""

    cases: Cases
    base: EditConfig
    trials: tuple[Tried, ...]
    front: tuple[Tried, ...]
    chosen: Mapping[str, Tried]
    default: Score
    check: Mapping[str, Score]

    @property
    def better(self) -> bool:
        """Whether the balanced point is at least as good as the default on facts that no trial saw."""
        return self.check["balanced"].mean() >= self.check["default"].mean()


def pareto(trials: Sequence[Tried]) -> tuple[Tried, ...]:
    """The trials that no other one beats or equals in both objectives, the most successful first."""
    front: list[Tried] = []
    for tried in sorted(trials, key=lambda t: (-t.score.success, -t.score.locality, t.number)):
        if not front or tried.score.locality > front[-1].score.locality:
            front.append(tried)
    return tuple(front)


def choose(front: Sequence[Tried], weight: float) -> Tried:
    """The best of a front by the harmonic mean in which success counts `weight` times."""
    return max(front, key=lambda t: (t.score.mean(weight), -t.number))
