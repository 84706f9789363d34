"""`hubedit demo`, on a tiny model in place of the bundled one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import hubedit.demo
from hubedit.cli.app import run
from hubedit.errors import HubEditError
from hubedit.patch import Patch
from tests.cli.test_apply import facts_file
from tests.pico import pico

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft")


def test_the_tour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = facts_file(pico("qwen2", tmp_path / "bundle") / "facts.jsonl")
    monkeypatch.setattr(hubedit.demo, "_FOLDER", facts.parent)
    monkeypatch.chdir(tmp_path)
    line = ["demo", "--cache", str(tmp_path / "cache")]
    assert run(line) == 0
    text = capsys.readouterr().out
    for part in ("1. What the model knows", "it shall say", "4. The patch is a plain LoRA adapter"):
        assert part in text
    for part in ("the edited prompts give the new answer", "of 2 prompts", "rephrasings", "hubedit ask"):
        assert part in text
    assert Patch.load(tmp_path / "hubedit-demo").facts

    assert run(line) == 2
    assert "--force" in capsys.readouterr().err
    assert run([*line, "--force", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["path"] == "hubedit-demo"
    assert value["counts"]["success"] == 2
    assert value["peft"]["prompt"]


def test_missing_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hubedit.demo, "_FOLDER", tmp_path)
    with pytest.raises(HubEditError, match=r"config\.json is missing"):
        hubedit.demo.model_path()
    with pytest.raises(HubEditError, match=r"facts\.jsonl is missing"):
        hubedit.demo.facts_path()
    assert run(["demo"]) == 1
