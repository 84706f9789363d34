"""kill -9 at random moments: a silent command, work in a forked child, and how long it is left alone."""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

SAID = f"hubedit-kill-{os.getpid()}.log"


def run(*words: object) -> int:
    """One command line, silent; what it says lies in `SAID` of the temporary folder."""
    from hubedit.cli.app import run as command

    log = os.open(Path(tempfile.gettempdir()) / SAID, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    kept = [os.dup(1), os.dup(2)]
    for number in (1, 2):
        os.dup2(log, number)
    try:
        return command([str(word) for word in words])
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, own in zip((1, 2), kept, strict=True):
            os.dup2(own, number)
            os.close(own)
        os.close(log)


def said() -> str:
    """The end of what the last command said."""
    return (Path(tempfile.gettempdir()) / SAID).read_text(errors="replace")[-2000:]


def killed(work: Callable[[], object], seconds: float) -> bool:
    """Runs `work` in a child and kills it after so long; whether it was killed before it had ended."""
    child = _forked(work)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def duration(work: Callable[[], object]) -> float:
    """Seconds that `work` takes in a child."""
    began = time.monotonic()
    os.waitpid(_forked(work), 0)
    return time.monotonic() - began


def _forked(work: Callable[[], object]) -> int:
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return child


class Moments:
    """Random moments within a run, `count` of them before its end, however fast the machine just is."""

    def __init__(self, seed: int, seconds: float, count: int) -> None:
        self._chance, self._seconds, self._left = random.Random(seed), seconds, count

    def more(self) -> bool:
        return self._left > 0

    def next(self) -> float:
        return self._chance.uniform(0, 1.1 * self._seconds)

    def tell(self, killed: bool) -> None:
        """A run that had ended was shorter than thought; a killed one may have been longer."""
        self._left -= killed
        self._seconds *= 1.03 if killed else 0.93
