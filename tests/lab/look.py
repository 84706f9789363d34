"""Opens an HTML report in headless Chromium and writes what it looks like.

    python -m tests.lab.look REPORT.html --out DIR

Writes one PNG for each of light and dark, at a desk's and at a phone's width, and fails when the page is
wider than its window (tables must scroll inside themselves). The browser is the first of chromium,
chromium-browser, google-chrome that is installed, or the one named by CHROMIUM.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from html import unescape
from pathlib import Path

WIDTHS = {"desk": 1100, "phone": 390}
SCHEMES = {"dark": 0, "light": 1}
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# a window cannot be as narrow as a phone, a frame can; the report allows no script of its own
_FRAME = """<!doctype html><meta charset="utf-8"><style>
body {{ margin: 0 }} iframe {{ border: 0; width: {width}px; height: {height}px }}</style>
<iframe id="page" src="{page}"></iframe><script>
addEventListener("load", () => {{
  const root = document.getElementById("page").contentDocument.documentElement;
  const open = [...root.ownerDocument.querySelectorAll("details")];
  if ({opened}) open.forEach(d => d.open = true);
  document.body.dataset.wide = root.scrollWidth;
  document.body.dataset.high = root.scrollHeight;
}});
</script>"""

_USE = """<!doctype html><meta charset="utf-8"><body><iframe id="page" src="PAGE"></iframe><script>
addEventListener("load", () => {
  const view = document.getElementById("page").contentWindow, page = view.document, found = {};
  const input = element => element.dispatchEvent(new view.Event("input", {bubbles: true}));
  const type = text => { const box = page.getElementById("search"); box.value = text; input(box); };
  const choose = kind => {
    const box = page.querySelector(`input[value="${kind}"]`);
    box.checked = true;
    input(box);
  };
  const shown = () => page.getElementById("shown").textContent;
STEPS  document.body.dataset.found = JSON.stringify(found);
});
</script>"""
_MISSING = "no Chromium is installed; name one with CHROMIUM=/path/to/chromium"


@dataclass(frozen=True)
class Look:
    """One picture. `wide`, `high`: what the page needs, in CSS pixels, in a window `width` wide."""

    picture: Path
    width: int
    wide: int
    high: int

    @property
    def fits(self) -> bool:
        """Whether nothing sticks out at the side."""
        return self.wide <= self.width


def browser() -> str | None:
    """The program, or None where there is none."""
    named = os.environ.get("CHROMIUM")
    return named or next((found for name in _NAMES if (found := shutil.which(name))), None)


def look(page: Path, out: Path, *, opened: bool = False) -> list[Look]:
    """Pictures of the page in every scheme and width; `opened`: with everything that is folded unfolded.

    Raises FileNotFoundError without a browser, subprocess.CalledProcessError when it fails.
    """
    program = browser()
    if program is None:
        raise FileNotFoundError(_MISSING)
    out.mkdir(parents=True, exist_ok=True)
    looks = []
    for width_name, width in WIDTHS.items():
        for scheme in SCHEMES:
            picture = out / f"{page.stem}-{width_name}-{scheme}{'-opened' if opened else ''}.png"
            wide, high = _measure(program, page, width, opened)
            _shoot(program, page, width, high, scheme, opened, picture)
            looks.append(Look(picture, width, wide, high))
    return looks


def use(page: Path, steps: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """What the report says is shown after each of the `steps` (JavaScript that may `type(text)` into the
    search and `choose(kind)`), and the lines that the browser's console got.

    Raises FileNotFoundError without a browser, subprocess.CalledProcessError when it fails.
    """
    program = browser()
    if program is None:
        raise FileNotFoundError(_MISSING)
    done = "".join(f"  {step};\n  found[{json.dumps(name)}] = shown();\n" for name, step in steps.items())
    with tempfile.TemporaryDirectory() as folder:
        frame = Path(folder) / "frame.html"
        frame.write_text(
            _USE.replace("PAGE", page.resolve().as_uri()).replace("STEPS", done), encoding="utf-8"
        )
        more = ["--dump-dom", "--enable-logging=stderr"]
        ended = _start(program, Path(folder), 1100, 900, "light", more)
    told = re.search(r'data-found="([^"]*)"', ended.stdout)
    if told is None:
        raise RuntimeError(f"{page} did not load: {ended.stderr[-500:]}")
    found: dict[str, str] = json.loads(unescape(told[1]))
    return found, [line for line in ended.stderr.splitlines() if ":CONSOLE" in line]


def _measure(program: str, page: Path, width: int, opened: bool) -> tuple[int, int]:
    dom = _run(program, page, width, 900, "light", opened, ["--dump-dom"])
    wide, high = re.search(r'data-wide="(\d+)"', dom), re.search(r'data-high="(\d+)"', dom)
    if wide is None or high is None:
        raise RuntimeError(f"{page} did not load")
    return int(wide[1]), int(high[1])


def _shoot(program: str, page: Path, width: int, high: int, scheme: str, opened: bool, picture: Path) -> None:
    # a picture may not be higher than a texture
    _run(program, page, width, min(high, 16_000), scheme, opened, [f"--screenshot={picture.resolve()}"])


def _run(
    program: str, page: Path, width: int, height: int, scheme: str, opened: bool, more: list[str]
) -> str:
    with tempfile.TemporaryDirectory() as folder:
        frame = Path(folder) / "frame.html"
        values = {"width": width, "height": height, "page": page.resolve().as_uri()}
        frame.write_text(_FRAME.format(**values, opened=str(opened).lower()), encoding="utf-8")
        return _start(program, Path(folder), width, height, scheme, more).stdout


def _start(
    program: str, folder: Path, width: int, height: int, scheme: str, more: list[str]
) -> subprocess.CompletedProcess[str]:
    """Opens frame.html of the folder; with what the browser wrote."""
    command = [
        program,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--allow-file-access-from-files",
        f"--user-data-dir={folder}/profile",
        f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}",
        f"--window-size={max(width, 500)},{height}",
        *more,
        (folder / "frame.html").as_uri(),
    ]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)


def main() -> int:
    """Entry point; 1 when a page is wider than its window."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("page", type=Path, help="an HTML report")
    parser.add_argument("--out", type=Path, default=Path("build/look"), help="where the pictures go")
    parser.add_argument("--opened", action="store_true", help="unfold everything first")
    chosen = parser.parse_args()
    looks = look(chosen.page, chosen.out, opened=chosen.opened)
    for one in looks:
        print(f"{one.picture}: {one.wide} of {one.width} px wide, {one.high} px high")
    return 0 if all(one.fits for one in looks) else 1


if __name__ == "__main__":
    sys.exit(main())
