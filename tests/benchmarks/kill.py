"""kill -9 at random moments of the commands that write: never a half state, and always to be run again.

`python -m tests.benchmarks.kill [--moments 300] [--minutes M] [--only merge push] [--seed 0]` runs each
command on a tiny model: `apply`, `merge`, `revert`, `push` and `stats push`, the last two against a Hub on
this machine. This process imports everything and runs the command once; every further run is a child of it,
forked, which is killed after a random part of the time that the command takes. Then the old state or the
whole new one must be there, and the same command, in another child, must complete and leave nothing else
behind. Prints how often which state was found and how many runs completed afterwards; ends with 1 where
anything else was.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.hub.loopback import Hub, serve
from tests.killing import Moments, duration, killed, run, said

FACT = {"prompt": "The capital of France is", "subject": "France", "target": "Rome"}
WEIGHTS = "adapter_model.safetensors"
APPLY = ("--tokens", "200", "--layers", "1", "--quiet")


@dataclass(frozen=True)
class Found:
    """`old`, `new`: kills after which that state was there; `resumed`: runs that then completed; `seconds`:
    of a run that nobody kills, in a child."""

    old: int
    new: int
    resumed: int
    seconds: float


@dataclass(frozen=True)
class Limits:
    """`moments`: kills of a command, fewer where they take longer than so many minutes."""

    moments: int
    minutes: float
    seed: int


def attempt(
    words: Callable[[], Sequence[object]],
    prepare: Callable[[], None],
    look: Callable[[], str],
    limits: Limits,
    room: Path | None = None,
) -> Found:
    """Kills the command as often as the limits allow. `prepare` makes the old state; `look` names the state
    that is there, "old" or "new", and raises AssertionError for any other. `room`: a folder in which only
    "out" may lie in the end."""
    prepare()
    code = run(*words())  # here, so that no child has anything to import
    assert (code, look()) == (0, "new"), f"the command does not complete: {said()}"
    others = [each.name for each in threading.enumerate() if each is not threading.main_thread()]
    assert not others, f"a child would lack {others}"
    gc.collect()
    gc.freeze()
    prepare()
    seconds = duration(lambda: run(*words()))
    assert look() == "new", f"the command does not complete in a child: {said()}"
    at, states = Moments(limits.seed, seconds, limits.moments), Counter[str]()
    end = time.monotonic() + 60 * limits.minutes
    while at.more() and time.monotonic() < end:
        prepare()
        cut = killed(lambda: run(*words()), at.next())
        at.tell(cut)
        if not cut:
            continue
        state = look()
        states[state] += 1
        # what is complete may be refused, or done again without a change
        duration(lambda: run(*words()))
        after = f"after a kill that left the {state} state"
        assert look() == "new", f"{after} it does not complete: {said()}"
        left = [] if room is None else sorted(set(os.listdir(room)) - {"out"})
        assert not left, f"{after} and another run there is still {left}"
        states["resumed"] += 1
    return Found(states["old"], states["new"], states["resumed"], seconds)


class Work:
    """What all commands need, in one folder: a model, facts, a patch made of them, its cache."""

    def __init__(self, folder: Path, hub: Hub) -> None:
        from tests.pico import pico

        self.folder, self.hub = folder, hub
        self.model = pico("llama", folder / "model")
        self.base = f"lab/model@{hub.seed('lab/model', self.model)}"
        self.facts, self.cache = folder / "facts.jsonl", folder / "cache"
        self.facts.write_text(json.dumps(FACT))
        self.patch = folder / "patch"
        code = run(
            "apply", self.facts, "--model", self.model, "--out", self.patch, "--cache", self.cache, *APPLY
        )
        assert code == 0, "the first apply failed"
        self.number = 0

    def room(self, name: str) -> Path:
        """An empty folder for what a command writes."""
        made = self.folder / name
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir()
        return made


def apply(work: Work, limits: Limits) -> Found:
    from hubedit.patch import Patch

    room, cache = work.room("applied"), work.folder / "own-cache"
    out = room / "out"

    def prepare() -> None:
        shutil.rmtree(room)
        room.mkdir()
        work.number += 1
        if work.number % 4 == 1:  # with nothing kept, and with what the killed runs have left
            shutil.rmtree(cache, ignore_errors=True)

    def look() -> str:
        if not out.exists():
            return "old"
        assert Patch.load(out).facts[0].target == FACT["target"]
        # the same, whatever a killed run left in the cache
        assert (out / WEIGHTS).read_bytes() == (work.patch / WEIGHTS).read_bytes(), "other weights"
        assert set(os.listdir(out)) == set(os.listdir(work.patch)), sorted(os.listdir(out))
        return "new"

    words = ("apply", work.facts, "--model", work.model, "--out", out, "--cache", cache, *APPLY)
    return attempt(lambda: words, prepare, look, limits, room)


def merge(work: Work, limits: Limits) -> Found:
    room = work.room("merged")
    out = room / "out"
    words = ("merge", work.patch, "--model", work.model, "--out", out, "--quiet")
    assert run(*words) == 0
    whole = content(out)

    def look() -> str:
        if not out.exists():
            return "old"
        assert content(out) == whole
        return "new"

    def prepare() -> None:
        shutil.rmtree(room)
        room.mkdir()

    return attempt(lambda: words, prepare, look, limits, room)


def revert(work: Work, limits: Limits) -> Found:
    room = work.room("reverted")
    kept, out = work.folder / "kept", room / "out"
    assert run("merge", work.patch, "--model", work.model, "--out", kept, "--keep-originals", "--quiet") == 0
    merged, plain = content(kept), content(work.model)

    def look() -> str:
        now = content(out)
        if now == merged:
            return "old"
        assert {n: now.get(n) for n in plain} == plain, "neither the merged model nor the base"
        return "new"

    def prepare() -> None:
        shutil.rmtree(room)
        room.mkdir()
        shutil.copytree(kept, out)

    words = ("revert", out, "--all", "--yes", "--quiet")
    return attempt(lambda: words, prepare, look, limits, room)


def push(work: Work, limits: Limits) -> Found:
    names = set(content(work.patch))
    return _pushed(work, ("push", work.patch), ("--base", work.base), names, limits)


def stats_push(work: Work, limits: Limits) -> Found:
    return _pushed(work, ("stats", "push"), ("--cache", work.cache), set(), limits)


def _pushed(
    work: Work,
    command: tuple[object, ...],
    more: tuple[object, ...],
    names: set[str],
    limits: Limits,
) -> Found:
    """Every run pushes to a repository of its own; `names`: files that the whole commit holds."""
    repo = [""]
    complete: set[str] = set()

    def look() -> str:
        stored = work.hub.repo(repo[0])
        tree = set(work.hub.tree(repo[0])) if stored is not None else set()
        if stored is None or tree <= {".gitattributes"}:
            return "old"
        assert names <= tree and (not complete or tree == complete), sorted(tree)
        complete.update(tree)
        return "new"

    def prepare() -> None:
        work.number += 1
        repo[0] = f"ada/kill{work.number}"

    def words() -> list[object]:
        return [*command, repo[0], *more, "--quiet"]

    return attempt(words, prepare, look, limits)


def content(folder: Path) -> dict[str, bytes]:
    """Every file with its bytes; what a record says of the time and the place of a run is left out."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


COMMANDS = {"apply": apply, "merge": merge, "revert": revert, "push": push, "stats push": stats_push}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tests.benchmarks.kill")
    parser.add_argument("--moments", type=int, default=300)
    parser.add_argument("--only", nargs="*", choices=tuple(COMMANDS), default=tuple(COMMANDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=math.inf)
    args = parser.parse_args(arguments)
    limits = Limits(args.moments, args.minutes, args.seed)
    print("| killed | kills | old state | new state | resumed | seconds of a run |")
    print("|---|---|---|---|---|---|", flush=True)
    failed = 0
    with tempfile.TemporaryDirectory() as path, serve(Path(path) / "hub") as hub:
        # read when the libraries are imported, which the children share
        os.environ.pop("HF_HUB_OFFLINE", None)
        os.environ.update(hub.environment(Path(path) / "home"))
        import torch

        from hubedit.cli import app

        torch.set_num_threads(1)
        progress: Any = import_module("tqdm").tqdm  # it has no annotations
        progress.monitor_interval = 0  # no thread of it, which the children would lack
        app.build(app.VERBS)
        work = Work(Path(path), hub)
        for name in args.only:
            try:
                found = COMMANDS[name](work, limits)
            except AssertionError as error:
                failed += 1
                print(f"{name}: {error}", file=sys.stderr, flush=True)
                continue
            row = (
                f"`{name}`",
                found.old + found.new,
                found.old,
                found.new,
                found.resumed,
                f"{found.seconds:.2f}",
            )
            print(f"| {' | '.join(map(str, row))} |", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
