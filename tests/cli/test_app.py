"""The list of commands costs no import of the verbs, and says what the verbs say."""

from __future__ import annotations

import os
import platform
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


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel of Linux what the process holds")
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has no such option")
@pytest.mark.parametrize(("told", "kept"), [(True, True), (False, False)])
def test_the_command_keeps_the_memory_that_it_frees(told: bool, kept: bool) -> None:
    """Where nothing else says so: 200 MB that were used and freed are still the process's own."""
    script = (
        "import os\n"
        "from pathlib import Path\n"
        "from hubedit.cli import app\n"
        f"{'app._keep_freed_memory()' if told else ''}\n"
        "def resident():\n"
        "    return int(Path('/proc/self/statm').read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE')\n"
        "before = resident()\n"
        "block = bytearray(b'x') * 200_000_000\n"
        "del block\n"
        "print(resident() - before > 150_000_000)"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == str(kept), done.stderr
