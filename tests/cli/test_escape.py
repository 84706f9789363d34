"""Nothing of a file, a model or a server reaches the terminal as a control character, except in JSON data."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Group
from rich.text import Text

from hubedit.cli.app import run
from hubedit.cli.errors import report
from hubedit.cli.escape import escaped, json_escaped, one_line
from hubedit.cli.output import Output, console, table
from hubedit.cli.progress import LiveProgress
from hubedit.errors import FactsError

# ESC, OSC 52 (the clipboard), C1's CSI, bell, backspace, carriage return, a direction override, DEL
HOSTILE = "a\x1b[2Jb\x1b]52;c;aGk=\x07c\x9b31md\x08e\rf\u202eg\x7fh\u2028i"
SHOWN = "a\\x1b[2Jb\\x1b]52;c;aGk=\\x07c\\x9b31md\\x08e\\x0df\\u202eg\\x7fh\\u2028i"


def unsafe(text: str) -> list[str]:
    """Control characters of a text that a terminal would obey; a line feed is none."""
    return [c for c in text if (unicodedata.category(c) == "Cc" and c != "\n") or c in "\u2028\u2029\u202e"]


def test_control_characters_become_escapes() -> None:
    assert escaped(HOSTILE) == SHOWN
    assert escaped("a\n\tb é 東京 👩‍👧") == "a\n\tb é 東京 👩‍👧"
    assert one_line("a\n\tb\x1b") == "a\\n\\tb\\x1b"
    assert escaped("\ud800").isascii()


@given(st.text())
def test_any_text_can_be_shown(text: str) -> None:
    assert not unsafe(one_line(text))
    assert escaped(escaped(text)) == escaped(text)
    assert json.loads(json_escaped(json.dumps(text, ensure_ascii=False))) == text
    assert not unsafe(json_escaped(json.dumps(text, ensure_ascii=False)))


@pytest.mark.parametrize("quiet", [False, True])
def test_every_way_out_of_a_command_escapes(quiet: bool) -> None:
    out, err = io.StringIO(), io.StringIO()
    sink = Output(quiet=quiet, stdout=out, stderr=err)
    sink.note(HOSTILE)
    sink.warn(HOSTILE, HOSTILE)
    sink.show(HOSTILE)
    sink.show(Group(Text(HOSTILE.replace("\r", "")), table((HOSTILE,), [(HOSTILE,)], title=HOSTILE)))
    sink.write(HOSTILE)
    with sink.progress() as progress:
        progress.start(HOSTILE, 3, "facts")
        progress.message(HOSTILE)
        progress.finish(HOSTILE)
    sink.data({"text": HOSTILE}, human=HOSTILE, brief=HOSTILE)
    assert not unsafe(out.getvalue()) and not unsafe(err.getvalue())
    assert SHOWN in out.getvalue() and SHOWN in err.getvalue()


def test_a_table_keeps_its_columns_in_line() -> None:
    out = io.StringIO()
    Output(stdout=out, stderr=out).show(table(("a", "b"), [(HOSTILE, "x"), ("y", "z")]))
    borders = [max(line.rfind("│"), line.rfind("┃")) for line in out.getvalue().splitlines()]
    assert borders[0] == borders[2] == borders[3] > len(SHOWN)


def test_the_live_display_escapes_too() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    file = Terminal()
    with LiveProgress(console(file)) as progress:
        progress.start("load \x1b]52;c;x\x07", 3)
        progress.advance()
        progress.finish("\x9b31m")
    assert "\x1b]52" not in file.getvalue() and "\x9b" not in file.getvalue()
    assert "load \\x1b]52;c;x\\x07" in file.getvalue()


def test_json_data_is_equal_and_harmless() -> None:
    out = io.StringIO()
    Output(json=True, stdout=out, stderr=io.StringIO()).data({"text": HOSTILE})
    assert json.loads(out.getvalue()) == {"text": HOSTILE}
    assert not unsafe(out.getvalue())


@pytest.mark.parametrize("debug", [False, True])
def test_errors_of_servers_and_files_are_escaped(debug: bool) -> None:
    for error in (
        FactsError(f"{HOSTILE}\nerror: no", f"{HOSTILE}\nhint: no", [f"{HOSTILE}\n  no"]),
        OSError(13, "denied", HOSTILE),
        ConnectionError(HOSTILE),
        ValueError(HOSTILE),
    ):
        said: list[str] = []
        report(error, debug=debug, write=said.append)
        text = "".join(said)
        assert not unsafe(text) and "\\x1b" in text
        if not debug:
            assert all(line.startswith(("error: ", "hint: ", "  ")) for line in text.splitlines())
            assert len(text.splitlines()) <= 3


def test_what_libraries_log_and_warn_of_is_escaped() -> None:
    code = (
        "import logging, warnings; from hubedit.cli.escape import guard_libraries; guard_libraries();"
        "logging.getLogger('huggingface_hub').warning('server: %s', '\\x1b]52;c;x\\x07');"
        "warnings.warn('\\x9b31m', stacklevel=1)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "server: \\x1b]52;c;x\\x07" in done.stderr and "\\x9b31m" in done.stderr
    assert not unsafe(done.stderr)


def test_facts_and_usage_errors_are_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "facts.jsonl"
    fact = {"prompt": "the \x1b[31mPERU\x9b is", "subject": "\x1b[31mPeru", "target": "a\x07"}
    path.write_text(json.dumps(fact) + "\n" + json.dumps(fact | {"prompt": "\x1bx"}), encoding="utf-8")
    assert run(["facts", "check", str(path)]) == 2
    assert run(["facts", "check", "--\x1b[2J"]) == 2
    assert run(["\x1b]52;c;x\x07"]) == 2
    path.write_text(json.dumps(fact))
    assert run(["facts", "check", str(path)]) == 0
    said = capsys.readouterr()
    assert not unsafe(said.out) and not unsafe(said.err)
    assert "\\x1b[31mPERU" in said.err
