"""A benchmark on other models or data than it was written for, or with fewer edits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hubedit.bench.configuration import Bench, DataEntry, ModelEntry
from hubedit.errors import ConfigError


def changed(bench: Bench, *, models: Sequence[str] = (), data: Sequence[str] = (), limit: int = 0) -> Bench:
    """`models`: "REF" or "NAME=REF", and only these are run; `data`: "SOURCE" or "NAME=SOURCE", in place of
    the source of that name; `limit`: at most that many edits (0: as written).

    A model keeps the settings of the configuration's model of its name (the last part of REF where none is
    given); another model has no preset. Raises ConfigError where a name does not tell.
    """
    if models:
        bench = replace(bench, models=tuple(_model(bench, text) for text in models))
    for text in data:
        bench = _with_data(bench, text)
    if limit:
        bench = replace(bench, edits=tuple(dict.fromkeys(min(limit, n) for n in bench.edits)))
    return bench


def _model(bench: Bench, text: str) -> ModelEntry:
    name, equals, ref = text.rpartition("=")
    if not ref:
        raise ConfigError(f"--model {text!r} names no model", "write FOLDER, repo or NAME=FOLDER")
    last = ref.rstrip("/").rpartition("/")[2].partition("@")[0]
    wanted = name if equals else last
    known = {m.name.casefold(): m for m in bench.models}
    found = known.get(wanted.casefold())
    return replace(found, ref=ref) if found else ModelEntry(wanted, ref)


def _with_data(bench: Bench, text: str) -> Bench:
    name, equals, source = text.rpartition("=")
    if not source:
        raise ConfigError(f"--data {text!r} names no data", "write FILE or NAME=FILE")
    if not bench.data:
        return replace(bench, data=(DataEntry(name or source.rpartition("/")[2].partition(".")[0], source),))
    if not equals:
        if len(bench.data) > 1:
            names = ", ".join(entry.name for entry in bench.data)
            raise ConfigError("the benchmark has several data sets", f"write NAME=FILE with one of: {names}")
        name = bench.data[0].name
    if name not in {entry.name for entry in bench.data}:
        raise ConfigError(
            f"the benchmark has no data {name!r}", f"known: {', '.join(e.name for e in bench.data)}"
        )
    return replace(bench, data=tuple(replace(e, source=source) if e.name == name else e for e in bench.data))
