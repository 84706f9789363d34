r"""Draws a command as a terminal picture (SVG), from a real run in a pseudo-terminal.

    python docs/terminal.py --columns 118 --start "3. What" -- \
        hubedit demo --model smollm2-135m-instruct

`smollm2-135m-instruct`: what `python -m tests.lab.pretrained smollm2-135m-instruct` makes. The command sees a
terminal of `--columns` columns; what it leaves on the screen is drawn, without the path of the current
folder and with ~ for the home folder. `--lines` keeps the first and last lines of a long output, `--start`
leaves out what stands before a line that begins so. `--text` also writes the whole screen as text. Fails when
the command does.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import shlex
import sys
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

_CONTROL = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|[\r\n\x07]")


def record(command: list[str], columns: int, rows: int = 50) -> str:
    """All that the command writes to a terminal of its own, control sequences included.

    Raises SystemExit when it does not exit with 0.
    """
    import pty  # a Unix thing; the rest of this file is tested everywhere
    import termios

    child, handle = pty.fork()
    if child == 0:
        os.environ.update(TERM="xterm-256color", COLUMNS=str(columns), COLORTERM="truecolor")
        os.environ.pop("NO_COLOR", None)
        os.execvp(command[0], command)
    termios.tcsetwinsize(handle, (rows, columns))
    said = bytearray()
    while True:
        try:
            part = os.read(handle, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        said += part
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    text = said.decode("utf-8", errors="replace")
    if code:
        sys.stderr.write(text)
        raise SystemExit(f"{shlex.join(command)} exited with {code}")
    return text


def screen(text: str) -> list[str]:
    """The lines that remain on the screen, with their colours.

    Knows what progress displays use: carriage return, cursor up and down, and erasing a line; a line
    that is written again is written as a whole.
    """
    lines = [""]
    at, begin, position = 0, False, 0

    def write(part: str) -> None:
        nonlocal begin
        if part:
            lines[at] = part if begin else lines[at] + part
            begin = False

    for match in _CONTROL.finditer(text):
        write(text[position : match.start()])
        position = match.end()
        amount = int(match[1]) if match[1] and match[1].isdigit() else 1
        if match[0] == "\n":
            at, begin = at + 1, True
            lines += [""] * (at + 1 - len(lines))
        elif match[0] == "\r":
            begin = True
        elif match[2] == "m":
            # colours belong to the line, whatever stood there before
            write(match[0])
        elif match[2] == "A":
            at, begin = max(0, at - amount), True
        elif match[2] == "B":
            at, begin = min(len(lines) - 1, at + amount), True
        elif match[2] == "K":
            lines[at] = ""
    write(text[position:])
    while lines and not Text.from_ansi(lines[-1]).plain.strip():
        lines.pop()
    return lines


def shorten(lines: list[str], most: int) -> list[str]:
    """At most so many lines: the first and the last, with a mark between them."""
    if most <= 0 or len(lines) <= most:
        return lines
    head = (most - 1) // 2
    tail = most - 1 - head
    return [*lines[:head], f"\x1b[2m... {len(lines) - head - tail} lines ...\x1b[0m", *lines[-tail:]]


def draw(command: str, lines: list[str], columns: int) -> str:
    """SVG of the lines under a prompt with the command. It loads nothing from elsewhere."""
    console = Console(record=True, width=columns, file=io.StringIO(), color_system="truecolor")
    console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
    for line in lines:
        console.print(Text.from_ansi(line), soft_wrap=False, overflow="crop", no_wrap=True)
    svg = console.export_svg(title=command, theme=MONOKAI, unique_id="hubedit")
    # the viewer's own fixed-width font: a picture must not fetch fonts
    svg = re.sub(r"@font-face \{.*?\}\n?", "", svg, flags=re.DOTALL)
    svg = svg.replace("Fira Code, monospace", "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace")
    return "\n".join(line.rstrip() for line in svg.splitlines() if line.strip()) + "\n"


def main() -> None:
    """Runs the command after `--` and writes the picture."""
    parser = argparse.ArgumentParser(description="Draw a command's terminal output as SVG.")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("terminal.svg"))
    parser.add_argument("--columns", type=int, default=110)
    parser.add_argument("--lines", type=int, default=0, help="keep at most so many lines; 0: all")
    parser.add_argument("--start", default="", help="the first line that is drawn begins so")
    parser.add_argument("--text", type=Path, help="a file for the whole screen as text")
    parser.add_argument("command", nargs="+", help="the command, after --")
    given = parser.parse_args()
    said = record(given.command, given.columns).replace(f"{Path.cwd()}/", "").replace(f"{Path.home()}/", "~/")
    whole = screen(said)
    plain = [Text.from_ansi(line).plain.rstrip() for line in whole]
    if given.text:
        given.text.write_text("\n".join(plain) + "\n", encoding="utf-8")
    first = next((n for n, line in enumerate(plain) if line.startswith(given.start)), 0)
    lines = shorten(whole[first:], given.lines)
    given.out.write_text(draw(shlex.join(given.command), lines, given.columns), encoding="utf-8")


if __name__ == "__main__":
    main()
