"""Finding and filling the templates, in a checkout as in an installed wheel."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hubedit
from hubedit.errors import HubEditError
from hubedit.report import markup

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
    """The template filled in. A value the template names but `values` lacks is a programming error.

    In an HTML template every value is escaped. In a Markdown one a value from outside goes through the
    filter `cell`, `code`, `fenced` or `quoted`.
    """
    html = name.endswith(".html.j2")
    text = _environment(html=html).get_template(name).render(values)
    return text if html else re.sub(r"\n{3,}", "\n\n", text).lstrip("\n")


def _environment(*, html: bool) -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(templates_folder()),
        undefined=StrictUndefined,
        autoescape=html,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    for name in ("cell", "code", "fenced", "quoted", "clip", "line", "plural"):
        made.filters[name] = getattr(markup, name)
    return made
