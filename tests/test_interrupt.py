"""Killed at any moment: nothing half-written, and the same command goes on to the same bytes."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hubedit.cli.app import run
from hubedit.patch import Patch, adapter
from tests.cli.test_apply import facts_file
from tests.pico import pico

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="a forked process with torch is safe on Linux only"),
    # the tests' own process has one thread that computes
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A command line with every stage in it: trace, generated text, statistics, targets."""
    folder = tmp_path_factory.mktemp("interrupt")
    facts, model = facts_file(folder / "facts.jsonl"), pico("qwen2", folder / "model")
    line = ["apply", str(facts), "--model", str(model), "--device", "cpu"]
    return [*line, "--layers", "1-2", "--tokens", "200", "--alpha", "auto"]


@pytest.fixture(scope="module")
def whole(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], float]:
    """Hashes of the adapter of a run that nothing interrupts, and its seconds."""
    folder = tmp_path_factory.mktemp("whole")
    start = time.monotonic()
    assert wait(forked([*words, "--out", str(folder / "patch"), "--cache", str(folder / "cache")])) == 0
    return sha(folder / "patch"), time.monotonic() - start


def forked(line: list[str], prepare: Callable[[], object] = lambda: None) -> int:
    """Runs a command line in a child process, which need not import torch again; returns its id."""
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (1, 2):
            os.dup2(nowhere, stream)
        prepare()
        code = run(line)
    finally:
        os._exit(code)


def wait(child: int) -> int:
    """The exit code, or minus the signal's number."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def sha(folder: Path) -> dict[str, str]:
    names = ("adapter_model.safetensors", "adapter_config.json")
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


def test_killed_at_random_moments(
    words: list[str], whole: tuple[dict[str, str], float], tmp_path: Path
) -> None:
    out = tmp_path / "patch"
    line = [*words, "--out", str(out), "--cache", str(tmp_path / "cache")]
    wanted, seconds = whole
    moments = random.Random(0)
    codes = []
    for attempt in range(4):
        child = forked(line)
        time.sleep(seconds * moments.uniform(0.05, 0.6))
        os.kill(child, signal.SIGINT if attempt % 2 else signal.SIGKILL)
        codes.append(wait(child))
        if out.exists():  # it was quicker than the signal
            break
    assert set(codes) <= {-signal.SIGKILL, 130, 0}
    assert codes[0] == -signal.SIGKILL
    assert out.exists() or [f.name for f in tmp_path.iterdir() if f.name != "cache"] == []
    if not out.exists():
        assert wait(forked(line)) == 0
    Patch.load(out)
    assert sha(out) == wanted


def test_killed_while_the_patch_is_written(
    words: list[str], whole: tuple[dict[str, str], float], tmp_path: Path
) -> None:
    out = tmp_path / "patch"
    line = [*words, "--out", str(out), "--cache", str(tmp_path / "cache")]
    module: Any = adapter
    real = module.write_weights

    def die_after() -> None:
        def write(*args: object) -> None:
            real(*args)
            os.kill(os.getpid(), signal.SIGKILL)

        module.write_weights = write  # the child process ends with it

    assert wait(forked(line, die_after)) == -signal.SIGKILL
    assert not out.exists()
    assert all(f.name == "cache" or f.name.startswith(".patch.") for f in tmp_path.iterdir())
    made = {f: f.stat().st_mtime_ns for f in (tmp_path / "cache").rglob("*") if f.is_file()}
    assert {f.parent.name for f in made} >= {"trace", "corpus", "stats", "targets"}

    assert wait(forked(line)) == 0
    assert sha(out) == whole[0]
    assert sorted(f.name for f in tmp_path.iterdir()) == ["cache", "patch"]
    # nothing that was finished was computed again
    assert {f: f.stat().st_mtime_ns for f in (tmp_path / "cache").rglob("*") if f.is_file()} == made


def test_ctrl_c_is_one_line(words: list[str], tmp_path: Path) -> None:
    out, cache = tmp_path / "out", tmp_path / "cache"  # a cache of its own: nothing in it is made already
    out.mkdir()
    line = [sys.executable, "-m", "hubedit", *words, "--out", str(out / "patch"), "--cache", str(cache)]
    child = subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts
    )
    assert child.stderr is not None
    first = [child.stderr.readline()]
    while "generating" not in first[-1] and first[-1]:
        first.append(child.stderr.readline())
    assert "generating" in first[-1], first
    child.send_signal(signal.SIGINT)
    said, rest = child.communicate(timeout=240)
    assert (child.returncode, said) == (130, ""), rest
    assert "Traceback" not in rest
    assert rest.strip().splitlines()[-1] == (
        "interrupted; run the same command again; finished stages are kept"
    )
    assert list(out.iterdir()) == []


def heed_interrupts() -> None:
    """A shell without job control starts what runs in the background with Ctrl-C ignored, children too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
