"""The disk cache: what is saved comes back, and half an entry is never met."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError

from hubedit import cache as module
from hubedit.cache import Cache, default_root, digest, read_entry
from hubedit.errors import HubEditError

KEY = {"model": "abc", "layers": [1, 2], "step": 0.1}
TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(7)}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path)


def test_what_is_saved_comes_back_exactly(cache: Cache) -> None:
    more = {"half": torch.randn(3).bfloat16(), "none": torch.zeros(0, 4), "t": torch.randn(3, 2).T}
    tensors = {**TENSORS, **more}
    path = cache.save("stats", KEY, tensors, {"größe": [1, None]})
    entry = cache.load("stats", KEY)
    assert path == cache.path("stats", KEY)
    assert entry is not None
    assert entry.record == {"größe": [1, None], "key": KEY}
    assert set(entry.tensors) == set(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(entry.tensors[name], tensor)
        assert entry.tensors[name].dtype == tensor.dtype


def test_an_entry_without_tensors_comes_back(cache: Cache) -> None:
    cache.save("corpus", KEY, {}, {"texts": ["a"]})
    entry = cache.load("corpus", KEY)
    assert entry is not None and entry.tensors == {} and entry.record["texts"] == ["a"]


def test_views_of_one_tensor_are_saved_each(cache: Cache) -> None:
    whole = torch.arange(4.0)
    cache.save("x", KEY, {"whole": whole, "part": whole[1:]}, {})
    entry = cache.load("x", KEY)
    assert entry is not None and torch.equal(entry.tensors["part"], whole[1:])


def test_another_key_or_kind_is_another_entry(cache: Cache) -> None:
    cache.save("stats", KEY, TENSORS, {})
    assert cache.load("trace", KEY) is None
    for name in KEY:
        assert cache.load("stats", {**KEY, name: "other"}) is None
    assert cache.load("stats", {**KEY, "more": 1}) is None
    assert cache.load("stats", dict(reversed(KEY.items()))) is not None


@given(JSON, JSON)
def test_equal_data_has_equal_digests_and_other_data_others(a: Any, b: Any) -> None:
    assert digest(a) == digest(json.loads(json.dumps(a)))
    same = json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)
    assert (digest(a) == digest(b)) == same


def test_a_damaged_file_is_a_missing_one(cache: Cache) -> None:
    path = cache.save("stats", KEY, TENSORS, {})
    whole = path.read_bytes()
    cut = [whole[:n] for n in (0, 8, 100, len(whole) - 1)]
    for damaged in (*cut, b"\0" * len(whole), b"x" + whole[1:], whole + b"x"):
        path.write_bytes(damaged)
        assert cache.load("stats", KEY) is None
    path.write_bytes(whole.replace(b'\\"key\\"', b'\\"key\\\\'))
    assert cache.load("stats", KEY) is None
    path.write_bytes(whole.replace(b'"hubedit"', b'"othered"'))
    assert cache.load("stats", KEY) is None
    cache.save("stats", KEY, TENSORS, {})
    assert path.read_bytes() == whole, "saving again mends it"
    assert read_entry(path.with_name("absent")) is None


@pytest.mark.parametrize("step", ["save_file", "replace"])
def test_a_save_that_fails_leaves_the_old_entry_and_no_rest(
    step: str, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = cache.save("stats", KEY, TENSORS, {})
    before = path.read_bytes()

    def full(*args: Any, **more: Any) -> None:
        if step == "save_file":
            Path(args[1]).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    target = module if step == "save_file" else os
    monkeypatch.setattr(target, step, full)
    with pytest.raises(OSError, match="No space"):
        cache.save("stats", KEY, {"a": torch.zeros(9)}, {})
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert path.read_bytes() == before


def test_a_full_disk_is_said_plainly(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **more: Any) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(module, "save_file", full)
    with pytest.raises(HubEditError, match=r"cannot write .*No space") as caught:
        cache.save("stats", KEY, TENSORS, {})
    assert "HUBEDIT_CACHE" in caught.value.hint


def test_entries_and_clear_see_one_kind_and_no_unfinished_files(cache: Cache) -> None:
    assert list(cache.entries("stats")) == []
    assert cache.clear("stats") == 0
    paths = {cache.save("stats", {"n": n}, TENSORS, {}) for n in range(3)}
    other = cache.save("trace", KEY, TENSORS, {})
    left = next(iter(paths)).with_name(".abc.0123.part")
    left.write_bytes(b"half")
    assert set(cache.entries("stats")) == paths
    assert cache.clear("stats") == 3
    assert list((cache.root / "stats").iterdir()) == []
    assert other.exists()


def test_the_place_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HUBEDIT_CACHE", str(tmp_path / "own"))
    assert default_root() == Cache().root == tmp_path / "own"
    monkeypatch.delenv("HUBEDIT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_root() == tmp_path / "hubedit"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_root() == tmp_path / ".cache" / "hubedit"


def test_a_place_that_takes_nothing_is_told_at_once(tmp_path: Path) -> None:
    Cache(tmp_path / "new" / "place").check()
    assert not any((tmp_path / "new" / "place").iterdir())
    (tmp_path / "file").write_text("x")
    with pytest.raises(HubEditError, match="cannot be written to"):
        Cache(tmp_path / "file" / "place").check()
