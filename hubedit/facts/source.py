"""From a file to its records, each with the line it starts on. Knows JSON, JSON Lines and CSV, no schema."""

from __future__ import annotations

import codecs
import csv
import difflib
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hubedit.errors import FactsError

Container = Literal["jsonl", "json", "csv"]
_SPACE = re.compile(r"[ \t\n\ufeff]*")
_UTF16_32 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
_COLUMNS = {"prompt", "subject", "target", "target_new", "src", "alt"}


@dataclass(frozen=True)
class Raw:
    """One record as it stood in the file; `data` is any JSON value. `doubled`: keys given twice. `number`: of
    the record in its file, and `part` of the record, both 1-based; 0: not counted, the whole."""

    line: int
    data: Any
    doubled: tuple[str, ...] = ()
    number: int = 0
    part: int = 0


@dataclass
class Source:
    """The records of a file and what could not be read of it, as (line, what); `columns` of a CSV."""

    container: Container
    columns: tuple[str, ...] = ()
    top: int = 1
    records: list[Raw] = field(default_factory=list)
    problems: list[tuple[int, str]] = field(default_factory=list)


def read_text(path: Path) -> str:
    """The file's text with `\\n` line ends. Raises FactsError when it is no UTF-8 text file or empty."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        near = _neighbour(path)
        raise FactsError(
            f"{path}: no such file", f"did you mean {near}?" if near else "check the path"
        ) from None
    except IsADirectoryError:
        raise FactsError(f"{path} is a directory", "name a facts file in it") from None
    except OSError as error:
        raise FactsError(f"{path}: cannot be read: {error.strerror or error}") from None
    if data.startswith(_UTF16_32):
        raise FactsError(f"{path}: the text is UTF-16 or UTF-32", "save it as UTF-8")
    if b"\0" in data:
        raise FactsError(f"{path}: a binary file, not text", "give a JSONL, JSON or CSV file in UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise FactsError(f"{path}:{line}: not UTF-8 text", "save the file as UTF-8") from None
    if not text.strip("\ufeff \t\r\n"):
        raise FactsError(f"{path}: the file is empty", "write one fact on each line")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def split(text: str, path: Path, wanted: Container | None = None) -> Source:
    """The records of a text; the container is seen from its content unless `wanted` names one."""
    container = wanted or _sniff(text, path)
    if container == "csv":
        return _csv(text)
    if text.lstrip("\ufeff \t\n").startswith("["):
        return _array(text)
    return _objects(text) if _spread(text) else _lines(text)


def _neighbour(path: Path) -> str:
    try:
        names = [p.name for p in path.parent.iterdir()]
    except OSError:
        return ""
    near = difflib.get_close_matches(path.name, names, n=1)
    return str(path.with_name(near[0])) if near else ""


def _sniff(text: str, path: Path) -> Container:
    start = text.lstrip("\ufeff \t\n")
    if start[0] == "[":
        return "json"
    if start[0] == "{":
        return "json" if _spread(text) else "jsonl"
    header = re.split(r"[,;\t]", start.split("\n", 1)[0].lower())
    if path.suffix.lower() in (".csv", ".tsv") or _COLUMNS & {name.strip(' "') for name in header}:
        return "csv"
    return "jsonl"


def _spread(text: str) -> bool:
    """Whether the first object goes over several lines (one object, or several behind one another)."""
    start = text.lstrip("\ufeff \t\n")
    try:
        _, end = json.JSONDecoder().raw_decode(start)
    except (ValueError, RecursionError):
        return False
    return "\n" in start[:end]


class _Decoder:
    """A JSON decoder that remembers keys given twice, which the standard one drops without a word."""

    def __init__(self) -> None:
        self._doubled: list[str] = []
        self._json = json.JSONDecoder(object_pairs_hook=self._pairs)

    def at(self, text: str, start: int, line: int) -> tuple[Raw, int]:
        """The value that begins at `start`, and where it ends. Raises ValueError."""
        self._doubled = []
        try:
            data, end = self._json.raw_decode(text, start)
        except RecursionError:
            raise json.JSONDecodeError("Nested too deeply", text, start) from None
        return Raw(line, data, tuple(self._doubled)), end

    def _pairs(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        data = dict(pairs)
        if len(data) < len(pairs):
            keys = [key for key, _ in pairs]
            self._doubled += sorted({key for key in keys if keys.count(key) > 1})
        return data


def _lines(text: str) -> Source:
    source, decoder = Source("jsonl"), _Decoder()
    for number, whole in enumerate(text.split("\n"), 1):
        line = whole.strip("\ufeff \t")
        if not line:
            continue
        try:
            record, end = decoder.at(line, 0, number)
            if line[end:].strip():
                raise json.JSONDecodeError("Extra data", line, end)
        except ValueError as error:
            source.problems.append((number, _mend(line, error)))
        else:
            source.records.append(record)
    if not source.records and not any(line.strip("\ufeff \t").startswith("{") for line in text.split("\n")):
        source.problems = [
            (1, 'no JSON; write {"prompt": ..., "subject": ..., "target": ...}, one fact a line')
        ]
    return source


def _mend(line: str, error: ValueError) -> str:
    what, column = "invalid JSON", 1
    if isinstance(error, json.JSONDecodeError):
        column = error.colno
        what = f"invalid JSON at column {column}: {error.msg[:1].lower()}{error.msg[1:].removesuffix(' at')}"
    if line.endswith(",") and column == len(line):
        return f"{what}; remove the comma at the end of the line"
    if line.startswith("{'"):
        return f'{what}; put keys and strings in double quotes: {{"prompt": ...}}'
    return f"{what}; write one JSON object on each line"


def _array(text: str) -> Source:
    source, decoder = Source("json"), _Decoder()
    at, line, seen = text.index("[") + 1, 1, 0
    closed = False
    try:
        while True:
            at = _skip(text, at)
            if text[at : at + 1] == "]":
                closed = True
                break
            line, seen = line + text.count("\n", seen, at), at
            record, at = decoder.at(text, at, line)
            source.records.append(record)
            at = _skip(text, at)
            if text[at : at + 1] == ",":
                at += 1
            elif text[at : at + 1] != "]":
                raise json.JSONDecodeError("Expecting ',' or ']'", text, at)
        rest = _skip(text, at + 1)
        if rest < len(text):
            raise json.JSONDecodeError("Extra data", text, rest)
    except json.JSONDecodeError as error:
        what = f"invalid JSON at column {error.colno}: {error.msg[:1].lower()}{error.msg[1:]}"
        mend = "remove what follows the list" if closed else "mend it; the records after it were not read"
        source.problems.append((error.lineno, f"{what}; {mend}"))
    return source


def _objects(text: str) -> Source:
    source, decoder = Source("json"), _Decoder()
    at, line, seen = _skip(text, 0), 1, 0
    try:
        while at < len(text):
            line, seen = line + text.count("\n", seen, at), at
            record, at = decoder.at(text, at, line)
            source.records.append(record)
            at = _skip(text, at)
    except json.JSONDecodeError as error:
        what = f"invalid JSON at column {error.colno}: {error.msg[:1].lower()}{error.msg[1:]}"
        source.problems.append((error.lineno, f"{what}; mend it; the records after it were not read"))
    return source


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _csv(text: str) -> Source:
    source = Source("csv")
    text = text.lstrip("\ufeff")
    header = next(line for line in text.split("\n") if line.strip())
    delimiter = max(",;\t", key=header.count)
    rows = _rows(text, delimiter, source)
    line, names = next(rows, (1, []))
    names = [name.strip().lower() for name in names]
    source.columns, source.top = tuple(names), line
    if not _COLUMNS & set(names):
        source.problems.append((line, "no column names; write prompt,subject,target on the first line"))
        return source
    many = {"rephrase", "ground_truth"}
    doubled = sorted({n for n in names if names.count(n) > 1 and n not in many})
    source.problems += [(line, f'column "{name}" stands twice; keep one') for name in doubled]
    if doubled:
        return source
    for line, cells in rows:
        if len(cells) != len(names):
            what = f"{len(cells)} cells, but {len(names)} columns"
            mend = f'put a cell that holds "{delimiter}" in double quotes'
            source.problems.append((line, f"{what}; {mend if delimiter != chr(9) else 'mend the tabs'}"))
            continue
        data: dict[str, Any] = {name: [] for name in names}
        for name, cell in zip(names, cells, strict=True):
            if cell.strip():
                data[name].append(cell)
        plain = {n: v[0] if len(v) == 1 else v for n, v in data.items() if v}
        source.records.append(Raw(line, plain))
    return source


def _rows(text: str, delimiter: str, source: Source) -> Iterator[tuple[int, list[str]]]:
    """Rows that hold anything, with the line each starts on."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            what = f"invalid CSV: {error}; mend the quotes; the rows after it were not read"
            source.problems.append((line, what))
            return
        if any(cell.strip() for cell in row):
            yield line, row
