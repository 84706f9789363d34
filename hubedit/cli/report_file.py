"""Where `hubedit eval` writes its report, and what it must not replace."""

from __future__ import annotations

from collections.abc import Mapping
from json import loads
from pathlib import Path
from typing import Any

from hubedit.cli.output import as_json
from hubedit.cli.place import check_writable, unwritable
from hubedit.errors import ConfigError


def report_file(out: Path | None) -> Path | None:
    """The file that the report goes to. Raises ConfigError where there can be none."""
    if out is None:
        return None
    file = out if out.suffix == ".json" else out / "report.json"
    if file.is_dir():
        raise ConfigError(f"{file} is a folder", "choose another place with --out")
    if file.exists() and not _is_report(file):
        raise ConfigError(f"{file} exists and is no report", "choose another place with --out")
    check_writable(file.parent, file)
    return file


def _is_report(file: Path) -> bool:
    try:
        content = loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror or error}", "check its rights") from error
    except ValueError:
        return False
    # what `eval` writes always has the one, what `apply` writes the other
    return isinstance(content, dict) and not content.keys().isdisjoint(("evaluated", "metrics_before"))


def check_sample(file: Path) -> None:
    """A patch's full report is not replaced by one of other or fewer facts. Raises ConfigError."""
    if file.exists() and (file.parent / "hubedit.json").exists():
        raise ConfigError(
            f"{file} holds the results of all facts of the patch, and would be replaced by others",
            "choose another place with --out, or leave out --limit, --facts and --dataset",
        )


def write_report(file: Path, report: Mapping[str, Any]) -> None:
    """Raises ConfigError where the file cannot be written; a report that was there stays."""
    from hubedit.folder import write_file

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_file(file, f"{as_json(report)}\n".encode())
    except OSError as error:
        raise unwritable(file, error) from error
