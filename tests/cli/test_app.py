"""The list of commands costs no import of the verbs, and says what the verbs say."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import typer

from hubedit.cli import app


def help_of(tree: typer.Typer, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit):
        typer.main.get_command(tree).main(args=["--help"], prog_name="hubedit")
    return capsys.readouterr().out


def test_the_outline_is_the_real_help(capsys: pytest.CaptureFixture[str]) -> None:
    whole = help_of(app.build(), capsys)
    assert help_of(app.build([]), capsys) == whole
    for verb in app.VERBS:
        assert f"  {verb}" in whole
    assert help_of(app.build(["facts", "apply"]), capsys) == whole


def test_a_verb_that_runs_is_the_real_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["facts", "check", "--help"]) == 0
    assert "--on-conflict" in capsys.readouterr().out
    assert app.run(["nonsense"]) == 2
    assert "nonsense" in capsys.readouterr().err


@pytest.mark.parametrize(("word", "silent"), [("-q", "1"), ("--quiet", "1"), ("--json", None)])
def test_a_quiet_command_shows_no_bars_of_the_hubs_client(
    monkeypatch: pytest.MonkeyPatch, word: str, silent: str | None
) -> None:
    monkeypatch.setattr(os, "environ", {k: v for k, v in os.environ.items() if k.startswith("HUBEDIT")})
    monkeypatch.setattr(sys, "argv", ["hubedit", "merge", word])
    with pytest.raises(SystemExit):
        app.main()
    assert os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS") == silent


def test_the_list_of_commands_imports_no_verb() -> None:
    code = """
import sys
from hubedit.cli.app import VERBS, run
assert run(["--help"]) == 0
assert not [v for v in VERBS if f"hubedit.cli.{v}" in sys.modules]
assert "rich" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
