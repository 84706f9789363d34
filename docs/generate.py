"""The pages that come from the code: `cli.md` from the command tree, `config.md` from the dataclasses.

`python docs/generate.py` writes them. `make docs` (through `on_pre_build`) and the tests only check that
they are up to date. Needs no torch.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from enum import Enum
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import typer

from hubedit import config
from hubedit.cli.app import build

HERE = Path(__file__).parent
NOTE = "<!-- Made by docs/generate.py; edit the code instead. -->\n"
# typer adds these to every program; they say nothing about hubedit
_LEFT_OUT = {"install_completion", "show_completion", "help"}
_SAID = re.compile(r"\[default: ([^\]]+)\]\s*$")
_WORDS = {"str": "TEXT", "int": "INTEGER", "float": "FLOAT", "Path": "PATH"}


def command() -> Any:
    """The root of the command tree, as the program itself builds it."""
    return typer.main.get_command(build())


def leaves(node: Any, path: str = "hubedit") -> Iterator[tuple[str, Any]]:
    """Every command that does something, with its full name."""
    children = getattr(node, "commands", None)
    if not children:
        yield path, node
        return
    for name, child in children.items():
        yield from leaves(child, f"{path} {name}")


def cli_page() -> str:
    """`cli.md`: every verb with its arguments and options."""
    root = command()
    parts = [
        NOTE,
        "# Command line\n",
        "`-h` or `--help` after any command prints the same. Results go to stdout, progress and messages to "
        "stderr; `--json` prints one JSON value, `--quiet` only the brief result, and both together the JSON "
        "value without progress. A model is a local folder or `repo[@revision]` on the Hub. What a command "
        "ends with: [Exit codes](exit-codes.md).\n",
        "## Options of every command\n",
        _table(root.params),
    ]
    seen: set[str] = set()
    for path, node in leaves(root):
        group = path.split(" ")[1]
        if group not in seen:
            seen.add(group)
            parts.append(f"## hubedit {group}\n")
            if path.count(" ") > 1:
                parts.append(f"{root.commands[group].help.strip()}\n")
        if path.count(" ") > 1:
            parts.append(f"### {path}\n")
        parts.append(f"{_paragraphs(node.help)}\n")
        parts.append(f"```text\n{_usage(path, node)}\n```\n")
        parts.append(_table(node.params))
    return "\n".join(part for part in parts if part)


def config_page() -> str:
    """`config.md`: every field of every configuration, with its default and meaning."""
    kinds = [getattr(config, name) for name in vars(config) if name.endswith("Config")]
    kinds = [kind for kind in kinds if isinstance(kind, type) and is_dataclass(kind)]
    # the whole first, its parts in the order it names them
    kinds.sort(key=lambda kind: not any(is_dataclass(getattr(kind(), f.name)) for f in fields(kind)))
    parts = [
        NOTE,
        "# Configuration\n",
        "The frozen dataclasses of `hubedit.config`. The command line fills them from its options; an "
        "unknown key is an error. The values a patch was made with are in its `hubedit.json`.\n",
    ]
    for kind in kinds:
        meanings = field_docstrings(kind)
        parts.append(f"## {kind.__name__}\n\n{' '.join((kind.__doc__ or '').split())}\n")
        rows = ["| field | type | default | meaning |", "|---|---|---|---|"]
        default = kind()
        for f in fields(kind):
            value = getattr(default, f.name)
            if is_dataclass(value):
                name = type(value).__name__
                shown, meaning = "", f"its fields are [below](#{name.lower()})"
            else:
                shown, meaning = _code(repr(value)), _cell(meanings.get(f.name, ""))
            rows.append(f"| `{f.name}` | {_code(_type(f.type))} | {shown} | {meaning} |")
        parts.append("\n".join(rows) + "\n")
    return "\n".join(parts)


def _type(annotation: Any) -> str:
    """An annotation as it is written; a name for a list of values, which says nothing here, is their type."""
    values = get_args(vars(config).get(str(annotation)))
    return type(values[0]).__name__ if values else str(annotation)


def field_docstrings(kind: type) -> dict[str, str]:
    """The meaning of a configuration's fields: the text that stands below each of them."""
    (body,) = (
        node.body for node in ast.parse(inspect.getsource(kind)).body if isinstance(node, ast.ClassDef)
    )
    found: dict[str, str] = {}
    for node, below in pairwise(body):
        text = (
            below.value.value if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) else ""
        )
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and isinstance(text, str):
            found[node.target.id] = " ".join(text.split()).rstrip(".")
    return found


PAGES = {"cli.md": cli_page, "config.md": config_page}


def stale() -> list[str]:
    """The names of pages that the code would write differently."""
    return [
        name
        for name, page in PAGES.items()
        if not (HERE / name).is_file() or (HERE / name).read_text(encoding="utf-8") != page()
    ]


def on_pre_build(config: Any) -> None:
    """mkdocs calls this: a build with an old page fails and says what to run."""
    from mkdocs.exceptions import PluginError

    if names := stale():
        raise PluginError(f"docs/{names[0]} is out of date; run: python docs/generate.py")


def _bare(name: str) -> str:
    """An argument's name without the brackets and dots around it; those of REPO[@REVISION] belong to it."""
    name = name.strip(".")
    return name[1:-1] if name.startswith("[") and name.endswith("]") else name


def _usage(path: str, node: Any) -> str:
    words = [path]
    if any(p.param_type_name == "option" and not p.required for p in node.params):
        words.append("[OPTIONS]")
    words += [f"{p.opts[0]} {p.metavar or _kind(p)}" for p in node.params if _is_needed_option(p)]
    for p in node.params:
        if p.param_type_name == "argument":
            name = _bare(p.metavar or p.name.upper()) + ("..." if p.nargs == -1 else "")
            words.append(name if p.required else f"[{name}]")
    return " ".join(words)


def _is_needed_option(p: Any) -> bool:
    return bool(p.param_type_name == "option" and p.required)


def _table(params: list[Any]) -> str:
    shown = [p for p in params if p.name not in _LEFT_OUT and not getattr(p, "hidden", False)]
    if not shown:
        return ""
    rows = ["| | default | |", "|---|---|---|"]
    # arguments stand before the options, as in the usage
    for p in sorted(shown, key=lambda p: p.param_type_name != "argument"):
        text, default = _help(p), _default(p)
        if found := _SAID.search(text):
            # an option that is left out takes its default from the configuration, and says so in its help
            text, default = text[: found.start()].rstrip(), _code(found[1])
        rows.append(f"| {_names(p)} | {default} | {_cell(text)} |")
    return "\n".join(rows) + "\n"


def _names(p: Any) -> str:
    if p.param_type_name == "argument":
        return _code(_bare(p.metavar or p.name.upper()))
    names = ", ".join([*p.opts, *p.secondary_opts])
    return _code(names if p.is_flag else f"{names} {p.metavar or _kind(p)}")


def _kind(p: Any) -> str:
    annotation = p.type_descriptor.annotation
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return "|".join(str(member.value) for member in annotation)
    return _WORDS.get(getattr(annotation, "__name__", ""), "VALUE")


def _default(p: Any) -> str:
    value = p.default.value if isinstance(p.default, Enum) else p.default
    if p.required:
        return "needed"
    if getattr(p, "is_flag", False):
        if not p.secondary_opts:
            return ""
        return _code(p.opts[0] if value else p.secondary_opts[0])
    return "" if value is None or value in ("", (), []) else _code(str(value))


def _help(p: Any) -> str:
    text = (p.help or "").strip()
    return f"{text} May be given several times." if getattr(p, "multiple", False) else text


def _paragraphs(text: str | None) -> str:
    blocks = re.split(r"\n\s*\n", (text or "").strip())
    return "\n\n".join(_prose(" ".join(block.split())) for block in blocks)


def _prose(text: str) -> str:
    return text.replace("<", "&lt;").replace("*", "\\*").replace("[", "\\[")


def _cell(text: str) -> str:
    """Text for a cell of a table; what is between backticks stays code."""
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()))
    return "".join(
        part.replace("|", "\\|") if part.startswith("`") else _prose(part).replace("|", "\\|")
        for part in parts
    )


def _code(text: str) -> str:
    escaped = text.replace("|", "\\|")
    return f"`{escaped}`"


def main() -> None:
    """Writes the pages."""
    for name, page in PAGES.items():
        (HERE / name).write_text(page(), encoding="utf-8")
        sys.stderr.write(f"docs/{name}\n")


if __name__ == "__main__":
    main()
