"""`hubedit facts`: data on stdout, messages on stderr, exit code 2 with every problem."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest

from hubedit.cli.app import run
from hubedit.cli.facts import Conflict, Format
from hubedit.facts import FORMATS, OnConflict, load_facts
from tests.facts.test_tokens import word_level

FACT = {"prompt": "The capital of Peru is", "subject": "Peru", "target": "Cusco"}


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "facts.jsonl"
    path.write_text(json.dumps(FACT) + "\n" + json.dumps(FACT) + "\n")
    return path


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps(FACT | {"subject": "Chile"}) + "\n{\n")
    return path


def test_the_options_are_those_of_the_library() -> None:
    assert tuple(item.value for item in Format) == FORMATS
    assert tuple(item.value for item in Conflict) == get_args(OnConflict)


def test_check(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["facts", "check", str(good)]) == 0
    out, err = capsys.readouterr()
    assert "jsonl" in out
    assert "the same fact as line 1" in err
    assert "no problems" in err


def test_check_as_json(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["facts", "check", str(good), "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert (value["ok"], value["facts"], len(value["notices"])) == (True, 1, 1)
    assert value["sha256"] == load_facts(good).sha256


def test_check_lists_every_problem(bad: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["facts", "check", str(bad)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert f"{bad}:1: " in err
    assert f"{bad}:2: " in err
    assert run(["facts", "check", str(bad), "--json"]) == 2
    value = json.loads(capsys.readouterr().out)
    assert (value["ok"], len(value["problems"])) == (False, 2)


def test_check_against_a_tokenizer(good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    word_level().save_pretrained(tmp_path / "model")
    assert run(["facts", "check", str(good), "--model", str(tmp_path / "model")]) == 0
    good.write_text(json.dumps(FACT | {"target": "Lima"}))
    assert run(["facts", "check", str(good), "--model", str(tmp_path / "model")]) == 2
    assert f'{good}:1: target "Lima" has characters' in capsys.readouterr().err


def test_convert(good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new.jsonl"
    assert run(["facts", "convert", str(good), "--out", str(out)]) == 0
    assert [json.loads(line) for line in out.read_text().splitlines()] == [FACT]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["facts.jsonl", "new.jsonl"]
    capsys.readouterr()
    assert run(["facts", "convert", str(good), "--out", str(out)]) == 2
    assert "--force" in capsys.readouterr().err
    out.write_text("old")
    assert run(["facts", "convert", str(good), "--out", str(out), "--force"]) == 0
    assert json.loads(out.read_text()) == FACT


def test_convert_to_stdout(good: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    good.write_text(json.dumps(FACT | {"target": "Qusqu é"}, ensure_ascii=False), encoding="utf-8")
    assert run(["facts", "convert", str(good), "--out", "-"]) == 0
    assert json.loads(capfdbinary.readouterr().out.decode())["target"] == "Qusqu é"


def test_convert_to_stdout_is_equal_and_harmless(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    fact = {"prompt": "Peru\x9b31m is", "subject": "Peru", "target": "\u202ex\u2029x", "id": "\x9d52;c;x\x9c"}
    path = tmp_path / "facts.jsonl"
    path.write_text(json.dumps(fact))
    assert run(["facts", "convert", str(path), "--out", "-", "--quiet"]) == 0
    said = capfdbinary.readouterr().out.decode()
    assert json.loads(said) == fact and all(each.isprintable() for each in said.splitlines())


def test_convert_writes_nothing_when_it_fails(bad: Path, good: Path, tmp_path: Path) -> None:
    out = tmp_path / "new.jsonl"
    assert run(["facts", "convert", str(bad), "--out", str(out)]) == 2
    assert not out.exists()
    assert run(["facts", "convert", str(good), "--out", str(tmp_path)]) == 2
    assert run(["facts", "convert", str(good), "--out", str(tmp_path / "none" / "x.jsonl")]) == 2


def test_conflicts(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good.write_text(json.dumps(FACT) + "\n" + json.dumps(FACT | {"target": "Lima"}))
    assert run(["facts", "check", str(good)]) == 2
    assert "contradicts line 1" in capsys.readouterr().err
    assert run(["facts", "check", str(good), "--on-conflict", "last"]) == 0
