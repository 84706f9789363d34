"""Opens an HTML report in headless Chromium and writes what it looks like.

    python -m tests.lab.look REPORT.html --out DIR

Writes one PNG for each of light and dark, at a desk's and at a phone's width, and fails when the page is
wider than its window (tables must scroll inside themselves). The browser is the first of chromium,
chromium-browser, google-chrome that is installed, or the one named by CHROMIUM.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
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
        raise FileNotFoundError("no Chromium is installed; name one with CHROMIUM=/path/to/chromium")
    out.mkdir(parents=True, exist_ok=True)
    looks = []
    for width_name, width in WIDTHS.items():
        for scheme in SCHEMES:
            picture = out / f"{page.stem}-{width_name}-{scheme}{'-opened' if opened else ''}.png"
            wide, high = _measure(program, page, width, opened)
            _shoot(program, page, width, high, scheme, opened, picture)
            looks.append(Look(picture, width, wide, high))
    return looks


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
            frame.as_uri(),
        ]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
        return done.stdout


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
