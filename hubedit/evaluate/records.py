"""Benchmark records, each one read: what is measured are records, so none is merged or settled.

`hubedit.facts.load_facts` prepares one batch of edits, where two answers to one prompt contradict each
other. A benchmark has such records (10 of the 1304 in KnowEdit's ZsRE), and its numbers count them all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from hubedit.errors import ConfigError, FactsError
from hubedit.facts import Fact
from hubedit.facts.check import finish
from hubedit.facts.fact import Record
from hubedit.facts.schemas import SCHEMAS, Schema, by_rewrite, detect, looks_like
from hubedit.facts.source import read_text, split
from hubedit.remote import translated_errors

NAMES = ("zsre", "wiki_counterfact", "wiki_recent", "counterfact", "wikibigedit", "mquake-remastered")
_KNOWEDIT = "zjunlp/KnowEdit"
_FILES = {
    "zsre": (_KNOWEDIT, "benchmark/ZsRE/ZsRE-test-all.json"),
    "wiki_counterfact": (_KNOWEDIT, "benchmark/wiki_counterfact/test_cf.json"),
    "wiki_recent": (_KNOWEDIT, "benchmark/wiki_recent/recent_test.json"),
    "wikibigedit": ("lukasthede/WikiBigEdit", "wiki_big_edit_20240620_20240701.json"),
}
_TABLES = {
    "counterfact": ("azhx/counterfact", "test"),
    "mquake-remastered": ("henryzhongsc/MQuAKE-Remastered", "CF3k"),
}
ELSEWHERE = {
    "qaedit": "github.com/WanliYoung/Revisit-Editing-Evaluation",
    "mquake": "github.com/princeton-nlp/MQuAKE (datasets/MQuAKE-CF-3k-v2.json)",
    "rippleedits": "github.com/edenbiran/RippleEdits (data/benchmark)",
}
"""Data sets whose authors keep them outside the Hub, and where."""
_GIVE = "give the path of its file in place of the name"


@dataclass(frozen=True)
class Records:
    """`facts`: one for each record that can be used, in order; `total`: records in the file, where a MQuAKE
    case counts once a rewrite; `skipped`: the reason for every other one; `notices`: what was mended in
    those that were kept."""

    facts: tuple[Fact, ...]
    total: int
    format: str
    skipped: tuple[str, ...]
    notices: tuple[str, ...]


def read_records(path: str | Path, *, limit: int = 0) -> Records:
    """Every record of a benchmark's file, in any schema that facts come in, or ROME's known facts.

    `limit`: how many records, from the first on (0: all). Raises FactsError when the file cannot be read at
    all, or no record can be used.
    """
    path = Path(path)
    source = split(read_text(path), path, None)
    if not source.records:
        problems = [f"{path}:{line}: {what}" for line, what in source.problems]
        raise FactsError(f"{path}: no records in it", problems=problems)
    raws = list(by_rewrite(source.records[:limit] if limit else source.records))
    schema = detect((raw.data for raw in raws), source.container)
    facts: list[Fact] = []
    skipped = [f"{path}:{line}: {what}" for line, what in source.problems]
    notices: list[str] = []
    name = schema.name
    for raw in raws:
        where = f"{path}:{raw.line}"
        data = raw.data
        if isinstance(data, Mapping) and "attribute" in data and "target" not in data:
            data, name = _known(data), "known"
        fact, why, mended = _one(data, schema)
        notices += [f"{where}: {what}" for what in mended]
        if fact is None:
            skipped.append(f"{where}: {'; '.join(why)}")
        else:
            facts.append(replace(fact, line=raw.line))
    if not facts:
        raise FactsError(f"{path}: none of its {len(raws)} records can be used", problems=skipped)
    return Records(tuple(facts), len(raws), name, tuple(skipped), tuple(notices))


def dataset(name: str, *, limit: int = 0) -> Records:
    """The records of a file, or of a data set of the field by name (`NAMES`).

    Raises ConfigError when there is neither, or the data set cannot be fetched.
    """
    return read_records(located(name), limit=limit)


def located(name: str) -> Path:
    """A file by its path, or that of a data set by name, which is fetched. Raises ConfigError."""
    if Path(name).expanduser().is_file():
        return Path(name).expanduser()
    if name in ELSEWHERE:
        raise ConfigError(f"{name} is not on the Hub", f"download it from {ELSEWHERE[name]} and {_GIVE}")
    if name not in NAMES:
        raise ConfigError(f"{name} is neither a file nor a data set", f"give a path, or {', '.join(NAMES)}")
    return _fetched(name)


def _known(data: Mapping[str, Any]) -> dict[str, Any]:
    """ROME's known facts: the attribute is the answer that the model should know."""
    kept = {key: data[key] for key in ("prompt", "subject") if key in data}
    return {**kept, "target": data["attribute"], "id": data.get("known_id", "")}


def _one(data: Any, schema: Schema) -> tuple[Fact | None, Sequence[str], Sequence[str]]:
    """A record as a fact, or the reasons why it is none; and what was mended."""
    if not isinstance(data, Mapping):
        return None, ["not a JSON object"], []
    record = Record(data, strict=False)
    read = SCHEMAS[looks_like(data, "jsonl")].read if "target" in data else schema.read
    fact = finish(read(record), record)
    return (fact, (), record.notices) if fact is not None else (None, record.problems, record.notices)


def _fetched(name: str) -> Path:
    """The data set's file on this machine, from the Hub or its cache. Raises ConfigError."""
    from huggingface_hub import hf_hub_download

    repo, part = _FILES.get(name) or _TABLES[name]
    try:
        with translated_errors(repo, kind=ConfigError, doing="download"):
            if name in _FILES:
                return Path(hf_hub_download(repo, part, repo_type="dataset"))
            return _rows(repo, part)
    except ConfigError as error:
        if _GIVE in error.hint:
            raise
        hint = f"{error.hint}; or {_GIVE}" if error.hint else _GIVE
        raise ConfigError(f"data set {name}: {error.message}", hint) from error


def _rows(repo: str, part: str) -> Path:
    """A data set that the Hub holds as tables, as a file of JSON lines."""
    from hubedit.cache import default_root

    try:
        datasets: Any = import_module("datasets")
    except ImportError as error:
        raise ConfigError(
            f"data set {repo} needs the package 'datasets'", f"pip install 'hubedit[datasets]', or {_GIVE}"
        ) from error
    table = datasets.load_dataset(repo, split=part)
    place = default_root() / "datasets" / f"{repo.replace('/', '--')}-{part}-{len(table)}.jsonl"
    place.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table)
    place.write_text(text, encoding="utf-8")
    return place
