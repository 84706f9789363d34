"""The command line as a record keeps it, and as a person types it here."""

from __future__ import annotations

import shlex
import shutil
import sys
from enum import StrEnum
from pathlib import Path

from typer import Context


def program() -> str:
    """How hubedit can be started from here: by its name where the shell finds it, else as it was."""
    started = Path(sys.argv[0]).absolute()
    if started.parts[-2:] == ("hubedit", "__main__.py"):
        return f"{shlex.quote(_near(Path(sys.executable)))} -m hubedit"
    found = shutil.which("hubedit")
    if started.stem != "hubedit" or (found and Path(found).absolute() == started):
        return "hubedit"
    return shlex.quote(_near(started))


def _near(path: Path) -> str:
    """Relative to the current folder where it lies inside."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


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
