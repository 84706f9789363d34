"""`docs/exit-codes.md` says what the code does: the codes themselves, and what each command ends with."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import hubedit.errors
from hubedit.cli.app import VERBS, run
from hubedit.cli.errors import INTERRUPTED, report
from hubedit.errors import CheckpointError, FactsError, HubEditError, ModelError, PartialError, StrictError

PAGE = (Path(__file__).parents[2] / "docs" / "exit-codes.md").read_text(encoding="utf-8")
FACT = {"prompt": "The capital of Peru is", "subject": "Peru", "target": "Cusco"}


def rows(heading: str) -> Iterator[list[str]]:
    """The cells of the table below a heading."""
    section = PAGE.split(f"{heading}\n", 1)[1].split("\n#")[0]
    for line in section.splitlines():
        if line.startswith("| ") and not line.startswith("| code") and not line.startswith("| command"):
            yield [cell.strip() for cell in line.strip("|").split(" | ")]


def test_the_page_lists_the_codes_that_there_are() -> None:
    kinds = [k for k in vars(hubedit.errors).values() if isinstance(k, type) and issubclass(k, HubEditError)]
    codes = {0, INTERRUPTED} | {kind.exit_code for kind in kinds}
    assert [int(cells[0]) for cells in rows("# Exit codes")] == sorted(codes)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ModelError("x"), 1),
        (CheckpointError("x"), 1),
        (OSError(28, "x"), 1),
        (FactsError("x"), 2),
        (PartialError("x"), 3),
        (StrictError("x"), 3),
        (KeyboardInterrupt(), 130),
    ],
)
def test_the_meaning_of_a_code(error: BaseException, code: int) -> None:
    assert report(error, write=str) == code


def test_commands_and_options_of_the_page_exist(capsys: pytest.CaptureFixture[str]) -> None:
    named = 0
    for cells in rows("## Partial failure"):
        for command in re.findall(r"`([^`]+)`", cells[0]):
            words = command.split()
            assert words[0] in VERBS
            group = [word for word in words if not word.startswith("-")]
            assert run([*group, "--help"]) == 0
            shown = capsys.readouterr().out
            assert all(word in shown for word in words if word.startswith("-")), command
            named += 1
    assert named > 10


@pytest.mark.parametrize(
    "words",
    [
        ["apply", "FACTS", "--model", "MODEL", "--out", "OUT"],
        ["edit", "MODEL", "--out", "OUT"],
        ["eval", "MODEL", "--facts", "FACTS", "--out", "OUT"],
        ["trace", "FACTS", "--model", "MODEL", "--out", "OUT"],
        ["tune", "MODEL", "--out", "OUT/preset.toml"],
        ["bench", "BENCH", "--out", "OUT"],
        ["merge", "PATCH", "--model", "MODEL", "--out", "OUT"],
        ["extract", "MODEL", "MODEL", "--out", "OUT"],
        ["compose", "PATCH", "PATCH", "--out", "OUT"],
        ["facts", "convert", "FACTS", "--out", "OUT"],
    ],
    ids=lambda words: words[0],
)
def test_a_place_that_cannot_be_written_is_told_before_anything_is_read(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The model and the patches are not there, and nothing is said of that."""
    facts, bench = tmp_path / "facts.jsonl", tmp_path / "bench.toml"
    facts.write_text(json.dumps(FACT))
    bench.write_text(f'edits = [1]\n[[models]]\nref = "{tmp_path}/model"\n[[runs]]\nmethod = "joint"\n')
    places = {"FACTS": facts, "BENCH": bench, "OUT": facts / "out", "OUT/preset.toml": facts / "preset.toml"}
    given = [str(places.get(word, tmp_path / word.lower() if word.isupper() else word)) for word in words]
    assert run(given) == 2
    said = capsys.readouterr()
    first, second = said.err.splitlines()
    assert first.startswith("error: ") and second.startswith("hint: ") and said.out == ""
    assert str(facts) in first and str(tmp_path / "model") not in first
    assert sorted(tmp_path.iterdir()) == [bench, facts]


def test_facts_with_a_problem_end_with_2_and_nothing_is_written(tmp_path: Path) -> None:
    path, out = tmp_path / "facts.jsonl", tmp_path / "out.jsonl"
    path.write_text(json.dumps(FACT) + "\n" + json.dumps(FACT | {"subject": "Chile"}))
    assert run(["facts", "check", str(path)]) == 2
    assert run(["facts", "convert", str(path), "--out", str(out)]) == 2
    assert not out.exists()


def test_json_of_a_failure_is_on_stdout_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "facts.jsonl"
    path.write_text("{")
    assert run(["facts", "check", str(path), "--json", "--quiet"]) == 2
    said = capsys.readouterr()
    assert json.loads(said.out)["ok"] is False
    assert said.err.startswith("error: ")
    path.write_text(json.dumps(FACT | {"prompt": "The capital of PERU is"}))
    assert run(["facts", "check", str(path), "--json", "--quiet"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["ok"] is True and said.err == ""
