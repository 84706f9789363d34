"""A revert that cannot bring back the base's exact bytes says so, and the merged model stays as it is."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from hubedit.checkpoint.merge import MergeOptions, merge
from hubedit.checkpoint.revert import prepare, revert
from hubedit.errors import CheckpointError, HubEditError
from hubedit.model.fetch import Source
from tests.checkpoint.tiny import MODULES, content, local, patch, tiny

ORIGINALS = "originals/model.safetensors"


def test_without_originals_the_base_must_be_given(tmp_path: Path) -> None:
    base = tiny(tmp_path / "m")
    options = MergeOptions(keep_originals=False)
    out = merge([patch(base)], local(base), tmp_path / "out", options).path
    before = content(out)
    assert ORIGINALS not in before
    other = tiny(tmp_path / "other", seed=5)
    for source, message in ((None, "no originals were kept"), (local(other), "has other bytes")):
        with pytest.raises(CheckpointError, match=message) as raised:
            revert(out, base=source)
        assert "nothing was changed" in raised.value.hint and content(out) == before
    revert(out, base=local(base))
    assert content(base) == content(out), "the card comes from the given base too"


def test_a_given_base_with_other_bytes_is_refused_also_beside_originals(tmp_path: Path) -> None:
    base = tiny(tmp_path / "m")
    out = merge([patch(base)], local(base), tmp_path / "out").path
    before = content(out)
    assert ORIGINALS in before
    with pytest.raises(CheckpointError, match=r"other is not the base: .* has other bytes"):
        revert(out, base=local(tiny(tmp_path / "other", seed=5)))
    assert content(out) == before
    revert(out, base=local(base))
    assert content(base) == content(out)


def test_originals_that_were_damaged_are_not_believed(tmp_path: Path) -> None:
    base = tiny(tmp_path / "m")
    out = merge([patch(base)], local(base), tmp_path / "out").path
    data = bytearray((out / ORIGINALS).read_bytes())
    data[-1] ^= 1
    (out / ORIGINALS).write_bytes(data)
    before = content(out)
    with pytest.raises(CheckpointError, match=r"originals/: .* has other bytes"):
        revert(out)
    assert content(out) == before
    revert(out, base=local(base))
    assert content(out)["model.safetensors.index.json"] == content(base)["model.safetensors.index.json"]


def test_the_caches_snapshot_of_the_commit_gives_the_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "d" * 40
    cache = tmp_path / "hub"
    snapshot = cache / "models--owner--base" / "snapshots" / commit
    base = tiny(tmp_path / "m")
    shutil.copytree(base, snapshot)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    out = merge([patch(base)], Source("owner/base", snapshot, commit), tmp_path / "out").path
    assert ORIGINALS not in content(out)
    other = merge([patch(base)], Source("owner/base", snapshot, commit), tmp_path / "other").path
    bare = merge([patch(base)], Source("owner/base", snapshot, commit), tmp_path / "bare").path
    assert not revert(out).warnings and content(base) == content(out), "the card comes from the cache too"
    (snapshot / "README.md").unlink()
    (warning,) = revert(bare).warnings
    assert "README.md is not in the Hub's cache" in warning
    assert {k: v for k, v in content(base).items() if k != "README.md"} == content(bare)
    shutil.rmtree(snapshot)
    before = content(other)
    with pytest.raises(CheckpointError, match="HF_HUB_OFFLINE"):
        revert(other)
    assert content(other) == before


# --- refusals --------------------------------------------------------------------------------------------


def damage(out: Path, name: str, change: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads((out / name).read_text())
    change(data)
    (out / name).write_text(json.dumps(data))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "newer": (lambda p: damage(p, "hubedit.json", lambda d: d.update(schema_version=9)), "version is 9"),
    "no json": (lambda p: (p / "hubedit.json").write_text("{"), "not JSON"),
    "no lineage": (lambda p: damage(p, "hubedit.json", lambda d: d.pop("lineage")), "lineage is missing"),
    "no tensors": (lambda p: damage(p, "hubedit.json", lambda d: d.update(realised={})), "do not agree"),
    "another patch": (lambda p: patch(p, 9).save(p / "patches" / "1", overwrite=True), "is not the patch"),
    "no patch": (lambda p: shutil.rmtree(p / "patches"), "no patch folder"),
    "trained": (lambda p: retrain(p), "was changed after the merge"),
    "adapter": (lambda p: (p / "adapter_config.json").write_text("{}"), "LoRA adapter"),
    "link": (lambda p: relink(p), "is a link, as in the Hub's cache"),
    "no shard": (lambda p: (p / "model.safetensors").unlink(), "no safetensors weights"),
}  # fmt: skip


def retrain(out: Path) -> None:
    file = out / "model.safetensors"
    tensors = load_file(file)
    tensors[f"{MODULES[0]}.weight"] += 1
    save_file(tensors, file)


def relink(out: Path) -> None:
    os.rename(out / "model.safetensors", out / "blob")
    (out / "model.safetensors").symlink_to("blob")


@pytest.mark.parametrize("case", DAMAGE)
def test_what_is_not_as_the_merge_left_it_is_refused_and_stays(tmp_path: Path, case: str) -> None:
    base = tiny(tmp_path / "m", shards=1)
    out = merge([patch(base)], local(base), tmp_path / "out").path
    change, message = DAMAGE[case]
    change(out)
    before = content(out)
    with pytest.raises(HubEditError, match=message):
        revert(out)
    assert content(out) == before and sorted(os.listdir(tmp_path)) == ["m", "out"]


def test_what_is_no_merged_model_is_refused(tmp_path: Path) -> None:
    base = tiny(tmp_path / "m")
    with pytest.raises(CheckpointError, match="no merged patches"):
        revert(base)
    with pytest.raises(CheckpointError, match="no such folder"):
        revert(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="is a LoRA adapter"):
        revert(patch(base).save(tmp_path / "p"))


@pytest.mark.parametrize("call", ["fsync", "write", "mkdir"])
@pytest.mark.parametrize("at", [0, 2])
def test_a_disk_that_refuses_leaves_the_merged_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, at: int
) -> None:
    base = tiny(tmp_path / "m")
    out = merge([patch(base, 1), patch(base, 2)], local(base), tmp_path / "out").path
    before = content(out)
    made = prepare(out, last=True)
    real, calls = getattr(os, call), []

    def refuse(*arguments: Any, **more: Any) -> Any:
        calls.append(arguments)
        if len(calls) > at:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*arguments, **more)

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(HubEditError, match="No space left on device"):
        made.run()
    monkeypatch.undo()
    assert content(out) == before and sorted(os.listdir(tmp_path)) == ["m", "out"]
