"""Draws the reports of patches for the gallery, and writes its page.

    python docs/gallery.py "SmolLM2-135M-Instruct, ten everyday facts=hubedit-demo" ...

Each PATCH is a folder that `hubedit apply` or `hubedit demo` wrote. Its report.html is photographed in
headless Chromium (the first screen, in light and in dark), its figures and its command are taken from its own
files.
Needs Chromium and Pillow; CHROMIUM names one.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import tempfile
from pathlib import Path
from typing import Any

from hubedit.report.files import read_source
from hubedit.report.markup import cell
from hubedit.report.measures import ANSWERS, measures
from tests.lab.look import look

HERE = Path(__file__).parent
_HIGH = 1500
_INTRO = """<!-- Made by docs/gallery.py from the patches of real runs. -->
# Gallery

Reports of real runs, as `hubedit report` shows them: the first screen of `report.html`, in light and in
dark. What failed and what broke stands first in each. The commands make them again.
"""


def entry(title: str, folder: Path) -> str:
    """One section of the page; writes its pictures."""
    source = read_source(folder)
    name = re.sub(r"\W+", "-", title.lower()).strip("-")
    for scheme in ("light", "dark"):
        _picture(folder / "report.html", HERE / f"gallery-{name}-{scheme}.png", scheme)
    record: dict[str, Any] = json.loads((folder / "hubedit.json").read_text(encoding="utf-8"))
    answers = {(m.group, m.key): m for m in measures(source.measured) if m.after}
    keys = [*(("answers", key) for key in ANSWERS), ("text", "perplexity")]
    shown = [answers[key] for key in keys if key in answers]
    rows = [f"| {cell(m.name.partition(':')[0])} | {m.text('before')} | {m.text('after')} |" for m in shown]
    minutes = record["seconds"] / 60
    command = shlex.join(record["command"])
    return "\n".join(
        (
            f"\n## {title}\n",
            f"```bash\n{command}\n```\n",
            f"{minutes:.1f} minutes on {record['device']}, {record['dtype']}; without what the cache had.\n",
            "| | before | after |\n|---|---|---|",
            *rows,
            f"\n![The report of {title}, light](gallery-{name}-light.png)",
            f"![The same in dark](gallery-{name}-dark.png)\n",
        )
    )


def _picture(page: Path, out: Path, scheme: str) -> None:
    """The first screen of a page, in few colours: a page is flat, and a repository should stay small."""
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        taken = next(one for one in look(page, Path(folder)) if one.picture.stem.endswith(f"desk-{scheme}"))
        with Image.open(taken.picture) as image:
            top = image.convert("RGB").crop((0, 0, image.width, min(image.height, _HIGH)))
            top.quantize(64).save(out, optimize=True)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("patches", nargs="+", metavar="TITLE=PATCH")
    sections = []
    for given in parser.parse_args().patches:
        title, _, folder = given.rpartition("=")
        sections.append(entry(title, Path(folder)))
    (HERE / "gallery.md").write_text(_INTRO + "\n".join(sections), encoding="utf-8")


if __name__ == "__main__":
    main()
