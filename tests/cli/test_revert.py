"""`hubedit revert`: it asks, it says what it did, and it never leaves a half."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from hubedit.checkpoint.merge import Attached, MergeOptions, merge
from hubedit.cli.app import run
from tests.checkpoint.tiny import MODULES, content, local, patch, tiny


@pytest.fixture
def merged(tmp_path: Path) -> Path:
    base = tiny(tmp_path / "m")
    patches = [patch(base, 1, MODULES[:2], fact="Lyon"), patch(base, 2, MODULES[1:])]
    return merge(patches, local(base), tmp_path / "out", attached=[Attached("one"), Attached("two")]).path


def test_the_last_patch_then_all(merged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["revert", str(merged), "--last", "--yes", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert len(value["removed"]) == len(value["left"]) == 1
    assert value["recomputed"] == [f"{MODULES[1]}.weight"] and value["restored"] == [f"{MODULES[2]}.weight"]
    assert "one" in (merged / "README.md").read_text() and "two" not in (merged / "README.md").read_text()
    assert run(["revert", str(merged), "--all", "--yes"]) == 0
    assert "none: the weights are the base's" in capsys.readouterr().out
    assert content(merged) == content(tmp_path / "m")
    assert run(["log", str(merged)]) == 0
    assert "holds no edits" in capsys.readouterr().err
    assert run(["log", str(merged), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == []


def test_a_converted_model_is_never_called_the_base(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tiny(tmp_path / "m")
    stack = [patch(base, 1, MODULES[:1]), patch(base, 2, MODULES[1:])]
    out = merge(stack, local(base), tmp_path / "out", MergeOptions(dtype="float32")).path
    assert run(["revert", str(out), "--last", "--yes"]) == 0
    said = capsys.readouterr().out
    assert "converted to float32" in said and "sha256" not in said
    assert run(["revert", str(out), "--all", "--yes"]) == 1
    printed = capsys.readouterr()
    assert "cannot become the base again" in printed.err and not printed.out
    assert (out / "hubedit.json").exists()


def test_a_folder_that_is_not_there_is_told_before_anybody_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)
    assert run(["revert", "models/none", "--last"]) == 2
    assert capsys.readouterr().err.startswith("error: no such folder: models/none\nhint: check the path")


def test_one_patch_by_its_id(merged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = json.loads((merged / "hubedit.json").read_text())["lineage"][0]["id"]
    # where it is to be read: the log, in full and in brief
    assert run(["log", str(merged)]) == 0
    assert f"one ({first})" in capsys.readouterr().out
    assert run(["log", str(merged), "-q"]) == 0
    assert capsys.readouterr().out.splitlines()[0].startswith(f"{first} 20")
    assert run(["revert", str(merged), "--patch", first[:5], "-y", "-q"]) == 0
    printed = capsys.readouterr()
    assert printed.out.strip() == str(merged) and not printed.err
    assert [p["name"] for p in json.loads((merged / "hubedit.json").read_text())["lineage"]] == ["two"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "the stack has 2 patches"),
        (["--last"], 2, "add --yes"),
        (["--last", "--all", "--yes"], 2, "exclude each other"),
        (["--patch", "zz", "--yes"], 2, "its patches"),
        (["--last", "--base", "/nowhere", "--yes"], 1, "no such folder"),
    ],
)
def test_what_is_not_clear_changes_nothing(
    merged: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, said: str
) -> None:
    before = content(merged)
    assert run(["revert", str(merged), *words]) == code
    assert said in capsys.readouterr().err
    assert content(merged) == before


class Terminal(io.StringIO):
    """Standard input with a person at it."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("answer", ["y", "n", ""])
def test_a_person_is_asked(merged: Path, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    before = content(merged)
    monkeypatch.setattr("sys.stdin", Terminal(f"{answer}\n"))
    assert run(["revert", str(merged), "--last"]) == (0 if answer == "y" else 1)
    assert (content(merged) == before) == (answer != "y")


def test_the_base_can_be_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = tiny(tmp_path / "m")
    out = merge([patch(base)], local(base), tmp_path / "out", MergeOptions(keep_originals=False)).path
    assert run(["revert", str(out), "--yes"]) == 1
    assert "--base" in capsys.readouterr().err
    assert run(["revert", str(out), "--yes", "--base", str(base)]) == 0
    assert content(base) == content(out)


def test_standing_in_the_folder_is_told(
    merged: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(merged)
    assert run(["revert", ".", "--last", "--yes"]) == 0
    assert "the old folder" in capsys.readouterr().err
