"""kill -9 at any moment: a folder is the old model or the new one, and running again completes."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hubedit import folder
from hubedit.checkpoint.merge import merge
from hubedit.checkpoint.revert import prepare, revert
from hubedit.errors import ConfigError
from tests.checkpoint.tiny import MODULES, content, local, patch, tiny

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="kill -9"),
    # the children only read and write files
    pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),
]
MOMENTS = 100


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed process loses nothing that it wrote; syncing guards against a power cut, and takes long."""
    monkeypatch.setattr(folder, "_sync", lambda _: None)
    monkeypatch.setattr(folder, "sync_file", lambda _: None)


def killed(work: Callable[[], object], seconds: float) -> bool:
    """Runs `work` in a child and kills it after so long; whether it was killed before it had ended."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


class Moments:
    """Random moments within a run, `MOMENTS` of them before its end, however fast the machine just is."""

    def __init__(self, seed: int, seconds: float) -> None:
        self._chance, self._seconds, self._left = random.Random(seed), seconds, MOMENTS

    def more(self) -> bool:
        return self._left > 0

    def next(self) -> float:
        return self._chance.uniform(0, 1.1 * self._seconds)

    def tell(self, killed: bool) -> None:
        """A run that had ended was shorter than thought; a killed one may have been longer."""
        self._left -= killed
        self._seconds *= 1.03 if killed else 0.93


def duration(work: Callable[[], object]) -> float:
    """Seconds that `work` takes in a child."""
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    return time.monotonic() - began


@pytest.mark.slow
def test_a_merge_that_is_killed_leaves_nothing_or_everything(tmp_path: Path) -> None:
    base = tiny(tmp_path / "m")
    before = content(base)
    patches = [patch(base, 1), patch(base, 2, MODULES[:1])]
    out = tmp_path / "out"
    duration(lambda: merge(patches, local(base), out))
    shutil.rmtree(out)
    longest = duration(lambda: merge(patches, local(base), tmp_path / "first"))
    whole = content(tmp_path / "first")
    moments = Moments(0, longest)
    while moments.more():
        moments.tell(killed(lambda: merge(patches, local(base), out), moments.next()))
        assert content(base) == before
        if out.exists():
            assert content(out) == whole
            with pytest.raises(ConfigError, match="exists already"):
                merge(patches, local(base), out)
        else:
            merge(patches, local(base), out)
            assert content(out) == whole
        assert sorted(os.listdir(tmp_path)) == ["first", "m", "out"]
        shutil.rmtree(out)


@pytest.mark.slow
def test_a_revert_that_is_killed_leaves_the_old_model_or_the_new_one(tmp_path: Path) -> None:
    base = tiny(tmp_path / "m")
    patches = [patch(base, 1), patch(base, 2, MODULES[:2])]
    out = tmp_path / "out"
    merge(patches, local(base), out)
    shutil.copytree(out, tmp_path / "kept")
    both = content(out)
    revert(out, last=True)
    shutil.rmtree(out)
    shutil.copytree(tmp_path / "kept", out)
    longest = duration(lambda: revert(out, last=True))
    one = content(out)
    assert one != both
    moments, seen = Moments(1, longest), set()
    while moments.more():
        shutil.rmtree(out)
        shutil.copytree(tmp_path / "kept", out)
        moments.tell(killed(lambda: revert(out, last=True), moments.next()))
        found = content(out)
        assert found in (both, one)
        seen.add(found == one)
        if found == both:
            revert(out, last=True)
        else:
            prepare(out, last=True)
        # the next run also removes what the killed one left
        assert content(out) == one
        assert sorted(os.listdir(tmp_path)) == ["kept", "m", "out"]
    revert(out, everything=True)
    assert content(out) == content(base)
    assert seen == {False, True}
