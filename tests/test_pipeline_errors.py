"""What stops an edit: nothing is written, nothing is lost, and the model is as it was."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hubedit.bench.results import Results
from hubedit.edit.checks import check_config
from hubedit.errors import CollapseError, ConfigError, FactsError, HubEditError, PatchError
from hubedit.facts import Fact
from hubedit.folder import write_folder
from hubedit.model.editable import EditableModel
from hubedit.model.load import load
from hubedit.patch import adapter
from hubedit.pipeline import apply_facts, check_free
from hubedit.progress import Silent
from tests.quick import QUICK, run

Editable = Callable[..., EditableModel]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft")


class At(Silent):
    """A progress that does something when a stage begins whose name begins so."""

    def __init__(self, stage: str, action: Callable[[], object]) -> None:
        self.stage, self.action = stage, action

    def start(self, stage: str, total: int | None = None, unit: str = "") -> None:
        if stage.startswith(self.stage):
            self.action()


def begun() -> None:
    pytest.fail("the long work has begun")


@pytest.mark.parametrize("stage", ["edit, round 1", "asking after"])
@pytest.mark.parametrize("error", [CollapseError("the edit collapsed"), KeyboardInterrupt()])
def test_the_model_is_the_same_when_the_edit_raises(
    editable: Editable, tmp_path: Path, error: BaseException, stage: str
) -> None:
    em = editable("llama")
    before = em.weights_hash()

    def fail() -> None:
        raise error

    with pytest.raises(type(error)):
        run(em, tmp_path / "patch", progress=At(stage, fail))
    assert em.weights_hash() == before
    assert not any(site_module._forward_hooks for site_module in map(em.site, em.sites()))
    assert not [f for f in tmp_path.iterdir() if "patch" in f.name]


def test_a_model_that_was_changed_is_noticed(pico_path: Callable[..., Path], tmp_path: Path) -> None:
    em = load(str(pico_path("llama")), device="cpu")

    def spoil() -> None:
        next(em.model.parameters()).data[0, 0] += 1e-3

    with pytest.raises(HubEditError, match="weights changed"):
        run(em, tmp_path / "patch", progress=At("edit, round 1", spoil))
    assert not (tmp_path / "patch").exists()


@pytest.mark.parametrize(
    ("number", "room"),
    [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EACCES, False), (errno.EROFS, False)],
)
def test_only_a_full_disk_is_mended_by_making_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, room: bool
) -> None:
    def refused(*given: object, **more: object) -> None:
        raise OSError(number, os.strerror(number))

    def fill(part: Path) -> None:
        refused()

    with pytest.raises(PatchError) as patch:
        write_folder(tmp_path / "patch", fill, marker="hubedit.json", overwrite=False, error=PatchError)
    monkeypatch.setattr(os, "fsync", refused)
    with pytest.raises(HubEditError) as bench:
        Results(tmp_path).append({})
    for caught in (patch, bench):
        assert ("make room" in caught.value.hint) == room and "another place" in caught.value.hint


def test_a_place_that_takes_nothing_is_told_before_the_long_work(
    editable: Editable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*given: object, **more: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    em = editable("llama")
    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(ConfigError, match=r"cannot write to .*Read-only") as caught:
        run(em, tmp_path / "new" / "patch", progress=At("", begun))
    assert caught.value.hint == "choose another place with --out" and not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [".", "new", "new/patch", "../here/x/.."])
def test_trying_a_place_leaves_nothing_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    check_free(Path(name), False)
    assert [p.name for p in tmp_path.iterdir()] == ["here"] and not list((tmp_path / "here").iterdir())


def test_a_benchmark_is_never_mixed_into_another_folder(tmp_path: Path) -> None:
    Results(tmp_path / "none").check()
    (tmp_path / "hubedit.json").write_text("{}")
    with pytest.raises(ConfigError, match="holds no benchmark"):
        Results(tmp_path).check()
    Results(tmp_path).append({})
    Results(tmp_path).check()


@pytest.mark.parametrize("where", ["save_file", "rename"])
def test_a_full_disk_is_one_clear_error(
    editable: Editable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    em = editable("llama")
    run(em, tmp_path / "first")  # so that everything else is cached

    def full(*args: object, **more: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if where == "save_file":
        monkeypatch.setattr(adapter, "save_file", full)
    else:
        monkeypatch.setattr(os, where, full)
    with pytest.raises(PatchError, match="No space left on device") as caught:
        run(em, tmp_path / "patch")
    assert "make room" in caught.value.hint
    monkeypatch.undo()
    assert sorted(f.name for f in tmp_path.iterdir() if not f.name.startswith("cache")) == ["first"]


def test_what_is_wrong_is_said_before_the_long_work(editable: Editable, tmp_path: Path) -> None:
    em, never = editable("llama"), At("", begun)
    strangers = [Fact("The capital is", "Peru", "Lima", line=n) for n in (3, 9)]
    with pytest.raises(FactsError) as caught:
        apply_facts(em, strangers, QUICK, out=tmp_path / "patch", source="my.jsonl", progress=never)
    assert [p.split(": ")[0] for p in caught.value.problems] == ["my.jsonl:3", "my.jsonl:9"]
    with pytest.raises(FactsError, match="no facts"):
        apply_facts(em, [], QUICK, out=tmp_path / "patch", progress=never)
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    for place in ("file", "full", "file/below"):
        with pytest.raises(ConfigError):
            run(em, tmp_path / place, overwrite=True, progress=never)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"layers": "2-9"}, "layer 9 is outside"),
        ({"layers": "two"}, "cannot read layers"),
        ({"alpha": "1.5"}, "not a share"),
        ({"prefer": "speed"}, "unknown preference"),
        ({"rank": -2}, "rank must not be negative"),
        ({"lam": float("nan")}, "lam must not be negative"),
    ],
)
def test_settings_that_do_not_fit(editable: Editable, change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_config(editable("llama"), replace(QUICK, **change))


def test_only_a_patch_is_replaced(editable: Editable, tmp_path: Path) -> None:
    made = run(editable("llama"), tmp_path / "patch")
    with pytest.raises(ConfigError, match="exists already") as caught:
        check_free(made.path, overwrite=False)
    assert "--force" in caught.value.hint
    check_free(made.path, overwrite=True)
    (tmp_path / "link").symlink_to(made.path)
    with pytest.raises(ConfigError):
        check_free(tmp_path / "link", overwrite=True)
