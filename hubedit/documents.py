"""The documents of a corpus: a text file, a JSONL file, a folder or a Hub data set."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

from hubedit.errors import ConfigError
from hubedit.remote import redact_the_clients_log

_FILES = (".txt", ".jsonl", ".json", ".md", ".text", ".csv", ".parquet")
_COLUMNS = ("text", "content", "document", "sentence")
_PEEK = 1000


@dataclass(frozen=True)
class DataSet:
    """A data set by name: `owner/name[/configuration][@revision][:column]`, or a local folder."""

    name: str
    configuration: str = ""
    revision: str = ""
    column: str = ""

    @classmethod
    def parse(cls, text: str) -> DataSet:
        """Splits the name as written on the command line."""
        head, _, column = text.partition(":")
        head, _, revision = head.partition("@")
        parts = head.split("/")
        return cls("/".join(parts[:2]), "/".join(parts[2:]), revision, column)


def source(corpus: str) -> Path | DataSet:
    """The file or data set that `corpus` names. Raises ConfigError for a file that does not exist."""
    path = Path(corpus).expanduser()
    if path.is_file():
        return path
    folder, _, column = corpus.rpartition(":")
    if path.is_dir():
        return DataSet(str(path))
    if folder and Path(folder).expanduser().is_dir():
        return DataSet(str(Path(folder).expanduser()), column=column)
    if path.suffix.lower() in _FILES or corpus.startswith((".", "/", "~")):
        raise ConfigError(
            f"corpus file {corpus} does not exist", "give a .txt or .jsonl file, a Hub data set, or 'self'"
        )
    if not corpus or corpus.isspace():
        raise ConfigError("the corpus has no name", "give a .txt or .jsonl file, a Hub data set, or 'self'")
    return DataSet.parse(corpus)


def documents(corpus: str) -> Iterator[str]:
    """The texts of a file or data set in order, empty ones left out."""
    found = source(corpus)
    if isinstance(found, DataSet):
        texts = _dataset(found)
    elif found.suffix.lower() in (".jsonl", ".json"):
        texts = _jsonl(found)
    else:
        texts = _plain(found)
    return (text for text in texts if text.strip())


def fingerprint(corpus: str) -> dict[str, str]:
    """What identifies the content of a file or data set: it goes into the key of all that depends on it."""
    found = source(corpus)
    if isinstance(found, Path):
        return {"file": _sha256(found)}
    named = {"column": found.column, "configuration": found.configuration}
    if Path(found.name).is_dir():
        files = sorted(f for f in Path(found.name).rglob("*") if f.is_file())
        whole = hashlib.sha256("".join(f"{f.name} {_sha256(f)}\n" for f in files).encode())
        return {"folder": whole.hexdigest(), **named}
    return {"dataset": found.name, "revision": found.revision or _commit(found.name), **named}


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"cannot read corpus {path}: {error.strerror}") from error


def _plain(path: Path) -> Iterator[str]:
    """One document a paragraph where the file has blank lines, else one a line."""
    try:
        with path.open(encoding="utf-8") as file:
            head = [line.strip() for line in islice(file, _PEEK)]
        while head and not head[-1]:
            head.pop()
        paragraphs = "" in head
        with path.open(encoding="utf-8") as file:
            yield from _paragraphs(file) if paragraphs else (line.strip() for line in file)
    except UnicodeDecodeError as error:
        raise ConfigError(f"corpus {path} is not UTF-8 text", "convert it, for example with iconv") from error
    except OSError as error:
        raise ConfigError(f"cannot read corpus {path}: {error.strerror}") from error


def _paragraphs(lines: Iterable[str]) -> Iterator[str]:
    block: list[str] = []
    for line in lines:
        if line.strip():
            block.append(line.strip())
        elif block:
            yield " ".join(block)
            block = []
    if block:
        yield " ".join(block)


def _jsonl(path: Path) -> Iterator[str]:
    """The "text" of each line."""
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    text = json.loads(line)["text"]
                except (json.JSONDecodeError, KeyError, TypeError) as error:
                    raise ConfigError(
                        f'{path}:{number}: not a JSON object with "text"',
                        'write one {"text": "..."} a line',
                    ) from error
                if not isinstance(text, str):
                    raise ConfigError(f'{path}:{number}: "text" is not a string')
                yield text
    except UnicodeDecodeError as error:
        raise ConfigError(f"corpus {path} is not UTF-8 text", "convert it, for example with iconv") from error
    except OSError as error:
        raise ConfigError(f"cannot read corpus {path}: {error.strerror}") from error


def _dataset(named: DataSet) -> Iterator[str]:
    """The text column of the split "train", streamed."""
    try:
        datasets: Any = import_module("datasets")
    except ImportError as error:
        what = "the folder" if Path(named.name).is_dir() else "data set"
        raise ConfigError(
            f"{what} {named.name} needs the package 'datasets'",
            "pip install 'hubedit[datasets]', or give a .txt or .jsonl file",
        ) from error
    try:
        folder = Path(named.name)
        if (folder / "dataset_info.json").is_file() or (folder / "dataset_dict.json").is_file():
            data = datasets.load_from_disk(named.name)
            data = data.get("train", data) if isinstance(data, dict) else data
        else:
            data = datasets.load_dataset(
                named.name,
                named.configuration or None,
                split="train",
                streaming=True,
                revision=named.revision or None,
            )
        column = named.column
        for row in data:
            column = column or _column(named.name, row)
            if not isinstance(row.get(column), str):
                raise ConfigError(
                    f"data set {named.name} has no text column {column!r}", f"it has: {', '.join(row)}"
                )
            yield row[column]
    except (OSError, ValueError, KeyError, RuntimeError, _transport_error()) as error:
        first = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"cannot read data set {named.name}: {first}",
            "check the name, the network, and that it has a split 'train'; or give a .txt file",
        ) from error


def _column(name: str, row: dict[str, Any]) -> str:
    """The column that holds text: a usual name, else the only one with strings."""
    texts = [c for c, value in row.items() if isinstance(value, str)]
    usual = [c for c in _COLUMNS if c in texts]
    if usual or len(texts) == 1:
        return (usual or texts)[0]
    raise ConfigError(
        f"data set {name} has no column 'text'", f"name one as {name}:COLUMN, of: {', '.join(row)}"
    )


def _commit(name: str) -> str:
    """The commit a Hub data set stands at now, so that cached results never outlive its content."""
    from huggingface_hub import HfApi

    redact_the_clients_log()
    try:
        return HfApi().dataset_info(name).sha or ""
    except (OSError, ValueError, _transport_error()) as error:
        first = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"cannot find data set {name} on the Hub: {first}",
            f"check the name and the network, pin it as {name}@REVISION, or give a .txt file or 'self'",
        ) from error


def _transport_error() -> type[BaseException]:
    """What the Hub client raises without a connection: its HTTP library has had two names."""
    from huggingface_hub.errors import HfHubHTTPError

    return HfHubHTTPError.__mro__[1]
