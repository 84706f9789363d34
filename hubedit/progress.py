"""How the library tells what it is doing: it calls this, and never prints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

Item = TypeVar("Item")


class Progress(Protocol):
    """Receives stages one after another; the command line draws them."""

    def start(self, stage: str, total: int | None = None, unit: str = "") -> None:
        """A stage begins; `total` units are expected (None: unknown)."""

    def advance(self, amount: int = 1) -> None:
        """So many units of the current stage are done."""

    def finish(self, note: str = "") -> None:
        """The current stage is done; `note` says what came out, in a few words."""

    def message(self, text: str) -> None:
        """A notice or warning, one line."""


class Silent:
    """A `Progress` that shows nothing."""

    def start(self, stage: str, total: int | None = None, unit: str = "") -> None: ...

    def advance(self, amount: int = 1) -> None: ...

    def finish(self, note: str = "") -> None: ...

    def message(self, text: str) -> None: ...


def track(progress: Progress, items: Iterable[Item], size: int = 1) -> Iterator[Item]:
    """Yields the items and advances by `size` after each."""
    for item in items:
        yield item
        progress.advance(size)
