"""A model merged from the Hub is taken back by fetching only the bytes of the touched tensors."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.checkpoint.tiny import MODULES, content, patch, tiny
from tests.hub.conftest import Client
from tests.hub.loopback import Hub


@pytest.fixture
def merged(hub: Hub, client: Client, tmp_path: Path) -> tuple[Path, Path, dict[str, bytes]]:
    """(merged folder, the cache's folder of the base, the base's files)."""
    base = tiny(tmp_path / "base")
    repo = f"lab/{tmp_path.name}"
    commit = hub.seed(repo, base)
    made = replace(patch(base, modules=MODULES[:1]), base=repo, commit=commit)
    path = made.save(tmp_path / "patch")
    done = client("merge", path, "--out", tmp_path / "out", "--json").json
    assert done["base"] == {"ref": repo, "commit": commit} and not done["originals"]
    snapshot = Path(client("pull", f"{repo}@{commit}", "--json").json["path"])
    before = {k: v for k, v in content(base).items() if k != "README.md"}
    return tmp_path / "out", snapshot.parent.parent, before


def test_the_cache_gives_the_bytes_without_asking_the_hub(
    hub: Hub, client: Client, merged: tuple[Path, Path, dict[str, bytes]]
) -> None:
    out, cache, before = merged
    cached = content(cache)
    hub.clear()
    assert client("revert", out, "--yes", offline=True).code == 0
    assert content(out) == {**before, "README.md": b"the base's card"}
    assert content(cache) == cached and not hub.log()


def test_only_the_touched_tensors_are_fetched(
    hub: Hub, client: Client, merged: tuple[Path, Path, dict[str, bytes]]
) -> None:
    out, cache, before = merged
    shutil.rmtree(cache)
    hub.clear()
    done = client("revert", out, "--yes")
    assert done.code == 0, done.err
    assert "README.md is not in the Hub's cache" in done.err
    assert content(out) == before and not cache.exists()
    reads = [entry for entry in hub.log() if entry["method"] == "GET"]
    assert len(reads) == 3 and {Path(entry["path"]).name for entry in reads} == {
        "model-00001-of-00002.safetensors"
    }


def test_what_the_hub_does_not_give_changes_nothing(
    hub: Hub, client: Client, merged: tuple[Path, Path, dict[str, bytes]]
) -> None:
    out, cache, _ = merged
    shutil.rmtree(cache)
    before = content(out)
    offline = client("revert", out, "--yes", offline=True)
    assert offline.code == 1 and "HF_HUB_OFFLINE" in offline.err
    hub.fault("/resolve/", "status", status=500, times=99)
    failing = client("revert", out, "--yes")
    assert failing.code == 1 and "cannot be had" in failing.err and "--base" in failing.err
    hub.clear()
    # the connection ends each time before any byte of the tensor has come
    hub.fault("/resolve/", "drop-response", skip=2, at=0, times=99)
    cut = client("revert", out, "--yes")
    assert cut.code == 1 and "cannot be had" in cut.err
    hub.clear()
    assert content(out) == before
