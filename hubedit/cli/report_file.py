"""Where `hubedit eval` writes its report, and what it must not replace."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hubedit.cli.output import as_json
from hubedit.errors import ConfigError


def report_file(out: Path | None) -> Path | None:
    """The file that the report goes to. Raises ConfigError where there can be none."""
    from tempfile import TemporaryFile

    if out is None:
        return None
    file = out if out.suffix == ".json" else out / "report.json"
    for place in (file, *file.parents):
        if place.exists():
            if place.is_dir() is (place == file):
                raise ConfigError(f"{place} is in the way of {file}", "choose another place with --out")
            try:
                TemporaryFile(dir=place if place.is_dir() else place.parent).close()
            except OSError as error:
                raise _unwritable(file, error) from error
            break
    return file


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
        raise _unwritable(file, error) from error


def _unwritable(file: Path, error: OSError) -> ConfigError:
    reason = error.strerror or str(error)
    return ConfigError(f"cannot write {file}: {reason}", "choose another place with --out")
