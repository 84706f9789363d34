"""Whether a result can be written where it is wanted, known before the long work."""

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


def check_new_file(path: Path, *, force: bool = False) -> None:
    """Raises ConfigError where no file can be made, and without `force` where one is there."""
    if not path.parent.is_dir():
        raise ConfigError(f"there is no folder {path.parent}", "make it first")
    if path.is_dir() or (path.exists() and not path.is_file()):
        raise ConfigError(f"{path} is not a file", "name another place with --out")
    if path.exists() and not force:
        raise ConfigError(f"{path} exists", "give another name, or --force to replace it")
    check_writable(path.parent, path)


def unwritable(place: Path, error: OSError) -> ConfigError:
    """The error for a place that the system refuses."""
    return ConfigError(f"cannot write {place}: {error.strerror or error}", "choose another place with --out")
