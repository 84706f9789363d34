"""The sink, the progress display, and how errors look."""

from __future__ import annotations

import errno
import io
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import typer
from huggingface_hub.errors import HFValidationError

from hubedit.cli import app
from hubedit.cli.errors import explain, report
from hubedit.cli.output import Output, console, mark, table
from hubedit.errors import ConfigError, FactsError, PatchError, StrictError
from hubedit.patch.compose import ConflictError

Failing = Callable[..., int]


@dataclass
class Result:
    path: Path
    share: float
    names: tuple[str, ...]


VALUE = Result(Path("out"), float("nan"), ("[bold]x", "東京"))


def sink(**modes: bool) -> tuple[Output, io.StringIO, io.StringIO]:
    out, err = io.StringIO(), io.StringIO()
    return Output(**modes, stdout=out, stderr=err), out, err


def test_json_mode_prints_one_value_and_nothing_else() -> None:
    output, out, err = sink(json=True)
    output.show("for people")
    output.note("a note")
    output.data(VALUE, human="no", brief="no")
    assert json.loads(out.getvalue()) == {"path": "out", "share": None, "names": ["[bold]x", "東京"]}
    assert err.getvalue() == "a note\n"


def test_quiet_mode_prints_the_brief_result_and_warnings() -> None:
    output, out, err = sink(quiet=True)
    output.show("for people")
    output.note("a note")
    output.warn("careful")
    with output.progress() as progress:
        progress.start("work", 3)
        progress.message("hm")
        progress.finish()
    output.data(VALUE, human="no", brief="out/patch")
    assert (out.getvalue(), err.getvalue()) == ("out/patch\n", "warning: careful\n")


def test_human_mode_prints_tables_without_reading_markup() -> None:
    output, out, err = sink()
    made = table(("prompt", "rank"), [("[red]a[/red] :smile:", 1), ("b", None)], right=("rank",))
    output.data(VALUE, human=lambda: made)
    assert "[red]a[/red] :smile:" in out.getvalue() and "\x1b" not in out.getvalue()
    output.data(VALUE)
    assert "東京" in out.getvalue() and err.getvalue() == ""


def test_json_with_quiet_is_the_value_and_warnings_alone() -> None:
    output, out, err = sink(json=True, quiet=True)
    output.note("a note")
    output.show("for people")
    output.warn("careful", "and this")
    with output.progress() as progress:
        progress.start("work", 3)
        progress.advance()
        progress.message("hm")
        progress.finish()
    output.data(VALUE, human="no", brief="no")
    assert json.loads(out.getvalue())["path"] == "out"
    assert err.getvalue() == "warning: careful\n  and this\n"


@pytest.mark.parametrize("width", [8, 20, 80])
def test_a_narrow_terminal_loses_no_text(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    file = io.StringIO()
    console(file).print(table(("n", "text"), [("1", "abcdefghijklmnopqrst")]))
    folded = "".join(c for c in file.getvalue() if c in "abcdefghijklmnopqrst")
    assert folded.endswith("abcdefghijklmnopqrst")


def test_ascii_streams_get_ascii_json() -> None:
    raw = io.BytesIO()
    output = Output(json=True, stdout=io.TextIOWrapper(raw, encoding="ascii"), stderr=io.StringIO())
    output.data({"name": "東京"})
    assert json.loads(raw.getvalue()) == {"name": "東京"}


def test_no_color_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured = Terminal()
    console(coloured).print(mark(True))
    assert "\x1b[32m" in coloured.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    plain = Terminal()
    console(plain).print(mark(True))
    assert "\x1b[32m" not in plain.getvalue()
    assert (mark(True).plain, mark(False).plain, mark(None).plain) == ("yes", "no", "-")


# --- errors ----------------------------------------------------------------------------------------------


def shown(error: BaseException) -> tuple[int, str]:
    lines: list[str] = []
    code = report(error, write=lines.append)
    return code, "".join(lines)


def test_errors_are_one_line_and_a_hint() -> None:
    assert shown(PatchError("it is broken", "mend it")) == (1, "error: it is broken\nhint: mend it\n")
    assert shown(ConfigError("unknown option")) == (2, "error: unknown option\n")
    assert shown(StrictError("2 facts failed"))[0] == 3
    problems = FactsError(
        "2 problems in f.jsonl", "mend them", ["f.jsonl:1: no subject", "f.jsonl:3: no target"]
    )
    assert shown(problems) == (
        2,
        "error: 2 problems in f.jsonl\n  f.jsonl:1: no subject\n  f.jsonl:3: no target\nhint: mend them\n",
    )
    assert shown(KeyboardInterrupt()) == (
        130,
        "\ninterrupted; run the same command again; finished stages are kept\n",
    )


def test_every_error_shows_its_problems_once() -> None:
    error = ConflictError("they contradict: a (and 1 more)", "settle it", ["they contradict: a", "b"])
    assert shown(error) == (1, "error: they contradict: a (and 1 more)\n  b\nhint: settle it\n")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "permission denied: /x"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "too little memory"),
        (HFValidationError("Repo id must be ..."), "neither a folder nor the name of a Hub repository"),
        (ConnectionResetError("reset"), "the connection failed: reset"),
        (MemoryError(), "too little memory"),
    ],
)
def test_errors_of_libraries_say_what_to_do(error: BaseException, words: str) -> None:
    message, hint, code = explain(error)
    assert words in message and hint and code == 1 and "\n" not in message


def test_the_unexpected_is_one_line_that_asks_for_debug() -> None:
    code, text = shown(ValueError("odd\nand more"))
    assert (code, text) == (
        1,
        "error: internal error: ValueError: odd\nhint: run with --debug for the traceback\n",
    )


# --- the command -----------------------------------------------------------------------------------------


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Failing:
    """`failing(words, error)`: runs a command tree whose verb `fail` raises the error."""
    monkeypatch.delenv("HF_DEBUG", raising=False)

    def run(words: Sequence[str], error: BaseException | None = None) -> int:
        tree = app.build(())

        @tree.command()
        def fail(word: str = "") -> None:
            if error is not None:
                raise error
            typer.echo(word)

        return app.run(words, tree)

    return run


def test_exit_codes(failing: Failing, capsys: pytest.CaptureFixture[str]) -> None:
    assert failing(["fail", "--word", "hi"]) == 0
    assert capsys.readouterr().out == "hi\n"
    assert failing(["fail", "--nonsense"]) == 2
    assert app.run(["nonsense"]) == 2
    for error, code in (
        (KeyboardInterrupt(), 130),
        (StrictError("x"), 3),
        (ConfigError("x"), 2),
        (OSError(28, "x"), 1),
    ):
        capsys.readouterr()
        assert failing(["fail"], error) == code
        said = capsys.readouterr()
        assert said.out == "" and "Traceback" not in said.err and said.err.strip()
    assert app.run(["--version"]) == 0


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["nonsense"], "no such command 'nonsense'", "hubedit --help"),
        (["facts", "check", "--nonsense", "x"], "no such option: --nonsense", "hubedit facts check --help"),
        (["facts", "check"], "missing argument 'FILE'", "hubedit facts check --help"),
        (
            ["facts", "check", "a", "--limit", "x"],
            "invalid value for '--limit'",
            "hubedit facts check --help",
        ),
        (
            ["facts", "check", "a", "--format", "x"],
            "invalid value for '--format'",
            "hubedit facts check --help",
        ),
        (["facts", "nonsense"], "no such command 'nonsense'", "hubedit facts --help"),
    ],
)
def test_usage_errors_are_one_line_and_where_to_look(
    words: list[str], message: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(words) == 2
    said = capsys.readouterr()
    first, last = said.err.splitlines()
    assert said.out == "" and first.startswith(f"error: {message}") and last == f"hint: {hint}"


def test_no_arguments_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run([]) == 2
    assert "Usage: hubedit" in capsys.readouterr().err


def test_debug_shows_the_traceback_wherever_it_stands(
    failing: Failing, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["--debug", "fail"], ["fail", "--debug"]):
        assert failing(words, PatchError("broken")) == 1
        said = capsys.readouterr().err
        assert "Traceback" in said and said.endswith("error: broken\n")
    monkeypatch.setenv("HF_DEBUG", "1")
    assert failing(["fail"], PatchError("broken")) == 1
    assert "Traceback" in capsys.readouterr().err


def test_the_command_starts_and_a_closed_pipe_is_no_error() -> None:
    command = f"{sys.executable} -m hubedit --help | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr
    assert done.returncode in (0, 1)
