"""Faults on demand, and the log of what went over the wire."""

from __future__ import annotations

import re
import threading
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Kind = Literal["status", "drop-request", "drop-response", "lost", "slow", "race"]


@dataclass
class Fault:
    """One thing that goes wrong.

    `match`: regular expression on "METHOD /path?query"; `skip`: so many matching requests pass first;
    `times`: how often it happens. `kind`: "status" answers `status` and does nothing; "drop-request"
    closes the connection after `at` bytes of the request's body; "drop-response" does the work and
    closes after `at` bytes of the answer's body; "lost" does the work and closes with no answer; "slow"
    waits `seconds` first; "race" lets somebody else commit `files` to `repo` first.
    """

    match: str
    kind: Kind
    skip: int = 0
    times: int = 1
    status: int = 500
    code: str = ""
    message: str = ""
    at: int = 0
    seconds: float = 0.0
    repo: str = ""
    files: dict[str, str] = field(default_factory=dict)


@dataclass
class Line:
    """One request of the log. `received`, `sent`: bytes of the bodies."""

    method: str
    path: str
    status: int = 0
    received: int = 0
    sent: int = 0
    fault: str = ""


class Journal:
    """The armed faults and the log; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._open = 0
        self._faults: list[Fault] = []
        self._lines: list[Line] = []

    def arm(self, fault: Fault) -> None:
        """Adds a fault."""
        re.compile(fault.match)
        with self._lock:
            self._faults.append(fault)

    def clear(self) -> None:
        """Forgets all faults and the log."""
        with self._lock:
            self._settle()
            self._faults.clear()
            self._lines.clear()

    def take(self, method: str, target: str) -> Fault | None:
        """The fault that this request meets, counted down."""
        with self._lock:
            for fault in self._faults:
                if not fault.times or not re.search(fault.match, f"{method} {target}"):
                    continue
                if fault.skip:
                    fault.skip -= 1
                    continue
                fault.times -= 1
                return fault
        return None

    def begin(self) -> None:
        """A request that `add` will log."""
        with self._lock:
            self._open += 1

    def add(self, line: Line) -> None:
        """Logs a request, which has been answered."""
        with self._lock:
            self._lines.append(line)
            self._open -= 1
            self._lock.notify_all()

    def _settle(self) -> None:
        """Waits for what is being logged: a client has its answer a moment before."""
        self._lock.wait_for(lambda: self._open == 0, timeout=2)

    def lines(self) -> list[dict[str, Any]]:
        """The log as JSON data."""
        with self._lock:
            self._settle()
            return [asdict(line) for line in self._lines]
