"""The command line and its words as a record keeps them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from typer import Context


def words(context: Context) -> list[str]:
    """The command line again, from the options that were given: the same however hubedit was started."""
    line: list[str] = context.command_path.split()
    for parameter in sorted(context.command.params, key=lambda p: p.param_type_name != "argument"):
        source = context.get_parameter_source(str(parameter.name))
        if source is None or source.name != "COMMANDLINE":
            continue
        value = context.params[str(parameter.name)]
        if parameter.param_type_name == "argument":
            line.append(str(value))
        elif isinstance(value, bool):
            line.append(parameter.opts[0] if value else (parameter.secondary_opts or parameter.opts)[0])
        else:
            for one in value if isinstance(value, (list, tuple)) else [value]:
                line += [parameter.opts[0], str(one.value if isinstance(one, StrEnum) else one)]
    return line


def called(ref: str) -> str:
    """How records call a patch: a repository, or the last name of a path."""
    from hubedit.model.fetch import is_path

    return Path(ref).expanduser().resolve().name if is_path(ref) else ref
