"""Whether there is room for a result, known before the long work."""

from __future__ import annotations

from pathlib import Path

from hubedit.errors import ConfigError


def check_writable(folder: Path, file: Path | None = None) -> None:
    """Raises ConfigError where no file can be made in the folder, or in the one that it will be made in.
    `file`: the one that is meant, where messages shall name it."""
    from tempfile import TemporaryFile

    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise ConfigError(f"{there} is in the way of {file or folder}", "choose another place with --out")
    try:
        TemporaryFile(dir=there).close()
    except OSError as error:
        raise unwritable(file or folder, error) from error


def unwritable(place: Path, error: OSError) -> ConfigError:
    """The error for a place that the system refuses."""
    return ConfigError(f"cannot write {place}: {error.strerror or error}", "choose another place with --out")
