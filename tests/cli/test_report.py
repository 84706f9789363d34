"""`hubedit report`: made again, written elsewhere, compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hubedit.cli.app import run
from tests.report.examples import full_report, record, report


def patch(place: Path, made: dict[str, object] | None = None) -> Path:
    place.mkdir()
    (place / "hubedit.json").write_text(json.dumps(record(trace=None)), encoding="utf-8")
    (place / "report.json").write_text(json.dumps(made or full_report("A prompt")), encoding="utf-8")
    (place / "facts.jsonl").write_text('{"prompt": "A is", "subject": "A", "target": "b"}\n')
    return place


def test_a_folder_is_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = patch(tmp_path / "patch")
    assert run(["report", str(place), "--json"]) == 0
    files = json.loads(capsys.readouterr().out)["files"]
    assert str(place / "README.md") in files and all(Path(name).is_file() for name in files)


def test_the_page_alone_leaves_the_folder_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = patch(tmp_path / "patch")
    before = sorted(place.iterdir())
    assert run(["report", str(place), "--html", str(tmp_path / "new" / "x.html"), "-q"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "new" / "x.html")
    assert (tmp_path / "new" / "x.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert sorted(place.iterdir()) == before


def test_reports_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = patch(tmp_path / "one"), patch(tmp_path / "two", report(metrics={"success": 0.5}))
    assert run(["report", "--compare", str(one), str(two), "--out", str(tmp_path / "both")]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("| Measure | one | two |")
    assert {p.name for p in (tmp_path / "both").iterdir()} == {
        *("compare.md", "compare.csv", "compare.json", "compare.png"),
    }
    assert str(tmp_path) not in (tmp_path / "both/compare.md").read_text()
    assert run(["report", "--compare", str(one), str(two / "report.json"), "--csv"]) == 0
    assert capsys.readouterr().out.startswith("report,group,measure,n,before,after,low,high,stderr\n")
    assert run(["report", "--compare", str(one), str(two), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["reports"]["two"]["answers"]["success"]["after"] == 0.5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["one", "two"], "add --compare"),
        (["one", "--compare"], "two folders or more"),
        (["one", "--csv"], "belong to --compare"),
        (["one", "two", "--compare", "--html", "x"], "exclude each other"),
        (["one", "two", "--compare", "--csv", "--json"], "exclude each other"),
        (["nowhere"], "not a folder"),
    ],
)
def test_wrong_usage(
    words: list[str],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    patch(tmp_path / "one")
    patch(tmp_path / "two")
    monkeypatch.chdir(tmp_path)
    assert run(["report", *words]) in (1, 2)
    captured = capsys.readouterr()
    assert said in captured.err and captured.out == ""
