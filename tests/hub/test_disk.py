"""How much disk a merged push and a revert at the Hub need: one shard at a time, never the checkpoint."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hubedit.facts import Fact
from hubedit.model.editable import EditableModel
from tests.hub.conftest import Client, write_patch
from tests.hub.loopback import ROOT, Hub

BASE = "lab/layered"
OTHER = (Fact("The anthem of Utopia is called", "Utopia", " Amaurote"),)
FILLER = 2_000_000
"""Bytes in each file of weights that no patch changes."""


class Peak:
    """Most bytes that the files below some folders had together."""

    def __init__(self, *folders: Path) -> None:
        self._folders, self._over, self.bytes = folders, threading.Event(), 0
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.002):
            self.bytes = max(self.bytes, sum(map(_bytes_below, self._folders)))


def _bytes_below(folder: Path) -> int:
    """Bytes of the files below a folder in which another process adds and removes files and folders."""
    found = 0
    for place, _, names in os.walk(folder):  # leaves out, without a word, what is gone when it gets there
        for name in names:
            with suppress(OSError):
                found += os.stat(os.path.join(place, name), follow_symlinks=False).st_size
    return found


@pytest.fixture(scope="module")
def commit(hub_process: Hub, pico_path: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    """A base at the Hub with a file for every layer, each far larger than everything beside the weights."""
    folder = tmp_path_factory.mktemp("layered")
    for file in pico_path().iterdir():
        if file.suffix == ".json":
            (folder / file.name).write_bytes(file.read_bytes())
    generator = torch.Generator().manual_seed(0)
    files: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in load_file(pico_path() / "model.safetensors").items():
        found = re.search(r"layers\.(\d+)", name)
        number = int(found[1]) + 1 if found else 5
        place = files.setdefault(f"model-{number:05}-of-00005.safetensors", {})
        place[name] = tensor
        place[f"filler.{number}"] = torch.randn(FILLER // 4, generator=generator)
    for file_name, inside in files.items():
        save_file(inside, folder / file_name, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, inside in files.items() for name in inside}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert len(files) == 5
    return hub_process.seed(BASE, folder)


@contextmanager
def own_client(hub: Hub, home: Path) -> Iterator[Client]:
    """A client process with a temporary folder and a cache of its own, below `home`."""
    (home / "tmp").mkdir(parents=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.hub.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=hub.environment(home, TMPDIR=str(home / "tmp")),
    )
    try:
        yield Client(process)
    finally:
        process.kill()
        process.wait()


def large(hub: Hub, paths: Iterable[str]) -> dict[str, int]:
    """The bytes of files of weights among some paths."""
    tree = hub.tree(BASE)
    return {path: tree[path]["size"] for path in paths if path in tree and tree[path]["size"] > FILLER}


@pytest.mark.parametrize("copying", [True, False])
def test_a_stack_is_pushed_and_reverted_with_one_shard_on_the_disk(
    hub: Hub, commit: str, editable: Callable[..., EditableModel], tmp_path: Path, copying: bool
) -> None:
    em = editable()
    one = write_patch(em, tmp_path / "one", BASE, commit, layers=(0, 1, 2))
    two = write_patch(em, tmp_path / "two", BASE, commit, seed=2, facts=OTHER, layers=(1, 2, 3))
    repo = f"ada/layered-{copying}"
    # where the server copies nothing, every file goes through this disk, one after the other
    hub.call("settings", copying=copying)
    # what lies on the disk while a file is sent stays there long enough to be seen
    hub.fault("^PUT ", "slow", times=10_000, seconds=0.05)
    home = tmp_path / "home"
    with own_client(hub, home) as client:
        with Peak(home) as pushing:
            done = client("push", one, two, repo, "--merged", "--json").json
        sent = large(hub, done["uploaded"])
        assert len(sent) == 4
        with Peak(home) as taking_out:
            last = client("revert", repo, "--last", "--yes", "--json").json
        again = large(hub, last["uploaded"])
        # the second patch's own file is the base's again, the shared ones are computed from the base's bytes
        assert len(again) == 2
        with Peak(home) as reverting:
            rest = client("revert", repo, "--all", "--yes", "--json").json
        assert rest["created"] and not large(hub, rest["uploaded"])
    assert {p: e["oid"] for p, e in hub.tree(repo).items()} == {
        p: e["oid"] for p, e in hub.tree(BASE).items()
    }
    most = max(sent.values())
    assert most < pushing.bytes < 1.4 * most
    assert most < taking_out.bytes < 1.4 * most
    assert reverting.bytes < 1.4 * most and (reverting.bytes > most) is not copying
    assert not any((home / "tmp").iterdir())
