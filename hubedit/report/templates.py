"""Finding and filling the templates, in a checkout as in an installed wheel."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hubedit
from hubedit.errors import HubEditError

if TYPE_CHECKING:
    from jinja2 import Environment


def templates_folder() -> Path:
    """`templates/` beside the package in a checkout, inside it in a wheel. Raises HubEditError."""
    package = Path(hubedit.__file__).parent
    for folder in (package / "templates", package.parent / "templates"):
        if (folder / "patch_card.md.j2").is_file():
            return folder
    raise HubEditError("hubedit's templates are missing", "install hubedit again")


def render(name: str, values: Mapping[str, Any]) -> str:
    """The template filled in. A value the template names but `values` lacks is a programming error."""
    return _environment().get_template(name).render(values)


def cell(text: object) -> str:
    """Text for a cell of a Markdown table: one line, nothing in it read as Markdown, HTML or a new column."""
    line = " ".join(str(text).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for sign in "\\|`*_[]":
        line = line.replace(sign, f"\\{sign}")
    return line


def plural(count: int, noun: str) -> str:
    """`1 fact`, `2,000 facts`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(templates_folder()),
        undefined=StrictUndefined,
        autoescape=False,  # Markdown; every value from outside goes through `cell` or a quoting filter
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters["cell"] = cell
    made.filters["plural"] = plural
    # a Python, a JSON and a YAML string literal at once
    made.filters["quoted"] = lambda text: json.dumps(text, ensure_ascii=False)
    return made
