"""The results file: JSON Lines, one cell a line, only ever added to; many processes may share it.

A line is written under a lock and synced, so a process that is killed loses at most the cell it was
computing. What a kill cut off in the middle of a line is closed by the next writer, and reported to readers.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hubedit.errors import ConfigError, HubEditError
from hubedit.folder import next_step

if sys.platform != "win32":
    import fcntl

Row = Mapping[str, Any]

FILE = "results.jsonl"


@dataclass(frozen=True)
class Read:
    """`rows`: in the order of the file; `problems`: lines that hold no result, each with its number."""

    rows: tuple[Row, ...]
    problems: tuple[str, ...]

    @property
    def by_key(self) -> dict[str, Row]:
        """The last row of every key."""
        return {row["key"]: row for row in self.rows}


class Results:
    """The results in a folder, and who is computing what."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / FILE
        self._claims = folder / "claims"

    def read(self) -> Read:
        """Every whole line. Raises HubEditError when the file is there and cannot be read."""
        try:
            data = self.file.read_bytes()
        except FileNotFoundError:
            return Read((), ())
        except OSError as error:
            raise HubEditError(f"cannot read {self.file}: {error.strerror or error}") from error
        rows, problems = [], []
        for number, line in enumerate(data.split(b"\n"), 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError:  # half a line, or half a character
                row = None
            if (
                isinstance(row, dict)
                and isinstance(row.get("key"), str)
                and isinstance(row.get("cell"), dict)
            ):
                rows.append(row)
            else:
                problems.append(f"{self.file.name}:{number}: no result, cut off by a kill? It is left out")
        return Read(tuple(rows), tuple(problems))

    def check(self) -> None:
        """Raises ConfigError for a folder that holds something else than results."""
        used = self.folder.is_dir() and any(self.folder.iterdir())
        # asked after that: another process may begin the benchmark between the two
        if used and not (self.file.exists() or self._claims.exists()):
            raise ConfigError(
                f"{self.folder} is not empty and holds no benchmark", "choose another place with --out"
            )

    def append(self, row: Row) -> None:
        """Adds one line. Raises HubEditError when the disk refuses."""
        text = json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self.file.open("ab+") as stream, _locked(stream.fileno(), wait=True):
                end = stream.seek(0, os.SEEK_END)
                if end:
                    stream.seek(end - 1)
                    if stream.read(1) != b"\n":
                        text = "\n" + text  # half a line of a killed process must not take this one along
                stream.write(text.encode())
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise HubEditError(
                f"cannot write {self.file}: {error.strerror or error}",
                f"{next_step(error)}; finished cells are kept",
            ) from error

    @contextmanager
    def claim(self, key: str) -> Iterator[bool]:
        """Whether this process may compute the cell; False while another one does.

        The system drops the lock of a process that dies, so nobody has to find out whether it still runs.
        """
        try:
            self._claims.mkdir(parents=True, exist_ok=True)
            handle = os.open(self._claims / key, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise HubEditError(f"cannot write in {self.folder}: {error.strerror or error}") from error
        try:
            with _locked(handle, wait=False) as mine:
                yield mine
                if mine:
                    (self._claims / key).unlink(missing_ok=True)
        finally:
            os.close(handle)


@contextmanager
def _locked(handle: int, *, wait: bool) -> Iterator[bool]:
    """Holds a lock on an open file; False where another process has it and `wait` is not set.

    Where the system has no such locks (Windows) one process at a time must do.
    """
    if sys.platform == "win32":
        yield True
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        yield False
        return
    try:
        yield True
    finally:
        fcntl.flock(handle, fcntl.LOCK_UN)
