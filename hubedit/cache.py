"""The disk cache: everything expensive, under a key that hashes every input it depends on.

Entries are safetensors files with a JSON record in their metadata, written to a temporary name and
renamed, so a reader never meets half an entry. Location: `$HUBEDIT_CACHE`, else
`$XDG_CACHE_HOME/hubedit`, else `~/.cache/hubedit`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hubedit.errors import HubEditError
from hubedit.folder import write_file


def default_root() -> Path:
    """Where the cache lives for this user."""
    own = os.environ.get("HUBEDIT_CACHE")
    if own:
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "hubedit"


def digest(parts: Any) -> str:
    """sha256 (hex) of JSON data, independent of the order of keys."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Entry:
    """What one cache file holds: tensors by name, and the JSON record stored with them."""

    tensors: dict[str, Tensor]
    record: dict[str, Any]


class Cache:
    """A folder of entries, one sub-folder a kind ("stats", "trace", "targets").

    `repo`: the Hub's repository behind it, "" for none.
    """

    repo = ""

    def __init__(self, root: str | Path | None = None) -> None:
        self.root = Path(root).expanduser() if root is not None else default_root()

    def check(self) -> None:
        """Raises HubEditError where no entry can be written: said before long work, and not after it."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=self.root):
                pass
        except OSError as error:
            raise HubEditError(
                f"the cache {self.root} cannot be written to: {error.strerror or error}",
                "name another place with --cache or HUBEDIT_CACHE",
            ) from error

    def path(self, kind: str, key: Mapping[str, Any]) -> Path:
        """The file of an entry; `key` is JSON data naming every input."""
        return self.root / kind / f"{digest(key)[:32]}.safetensors"

    def load(self, kind: str, key: Mapping[str, Any]) -> Entry | None:
        """The entry, or None when it is not there. A damaged file counts as not there."""
        return read_entry(self.path(kind, key))

    def save(
        self, kind: str, key: Mapping[str, Any], tensors: Mapping[str, Tensor], record: Mapping[str, Any]
    ) -> Path:
        """Writes the entry; the key itself is stored in the record under "key".

        Raises OSError or HubEditError when it cannot be written; then nothing stands at its path.
        """
        path = self.path(kind, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({**record, "key": dict(key)}, ensure_ascii=False)
        try:
            # safetensors cannot hold an empty file, and wants contiguous tensors of their own
            data = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
            write_file(path, lambda part: save_file(data, part, metadata={"hubedit": text}))
        except SafetensorError as error:
            room = "make room, or " if "space" in str(error) else ""
            raise HubEditError(
                f"cannot write the cache entry {path}: {error}",
                f"{room}let HUBEDIT_CACHE name another place; finished stages are kept",
            ) from error
        return path

    def entries(self, kind: str) -> Iterator[Path]:
        """The files of one kind."""
        folder = self.root / kind
        if folder.is_dir():
            yield from sorted(folder.glob("*.safetensors"))

    def clear(self, kind: str) -> int:
        """Deletes all entries of one kind, and what killed runs left unfinished; returns how many entries."""
        files = list(self.entries(kind))
        for file in (*files, *(self.root / kind).glob(".*.part")):
            file.unlink(missing_ok=True)
        return len(files)


def read_entry(path: Path) -> Entry | None:
    """One cache file, or None when it is missing or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            record = json.loads((file.metadata() or {})["hubedit"])
            names = file.keys()  # the file itself cannot be walked through
            return Entry({name: file.get_tensor(name) for name in names}, record)
    except (FileNotFoundError, SafetensorError, KeyError, json.JSONDecodeError):
        return None
