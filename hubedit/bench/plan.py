"""A benchmark as it is written down: models, data, methods, and what each is crossed with.

Read from TOML or JSON; an unknown word is an error, because a misspelt setting would silently measure
something else.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hubedit.errors import ConfigError
from hubedit.model.forms import FORMS
from hubedit.presets import METHODS
from hubedit.values import parse_alpha

TABLES = ("alpha", "modules", "rome", "methods", "batches", "abilities")
Settings = Mapping[str, Any]
Sample = Literal["first", "random"]


@dataclass(frozen=True)
class ModelEntry:
    """`name`: how tables call it, and what replicates share: models of one name are averaged over.
    `ref`: a folder or repo[@revision]; `preset`: the model's name in `hubedit.presets`, "" for none."""

    name: str
    ref: str
    preset: str = ""


@dataclass(frozen=True)
class DataEntry:
    """`source`: a file of facts or benchmark records (`{model}` in it is the model's folder, `{seed}` the
    cell's seed), or a data set by name as `hubedit eval --dataset` takes it."""

    name: str
    source: str


@dataclass(frozen=True)
class Run:
    """One method with its settings. `alphas`: () leaves the settings' own; `batch_sizes`: 0 is all edits at
    once, () leaves the settings' own, as a method without batches does; `published`: the method must have
    published settings. Every one but hubedit's own has, and starts from them."""

    method: str
    label: str
    alphas: tuple[str, ...] = ()
    batch_sizes: tuple[int, ...] = ()
    published: bool = False
    settings: Settings = field(default_factory=dict)


@dataclass(frozen=True)
class Measures:
    """`fluency`: how many facts texts are written for; `text`: unrelated text for perplexity, "" is
    what the edit's statistics come from; `real_text`: real text beside it; `bystanders`: facts or records
    that nobody edits, "" for the rest of the data; `tasks`: of lm-eval; `task_limit`: questions of each, 0
    for all; `forms`: ways in which every prompt is asked (`hubedit.model.forms.FORMS`); `automatic`: probes
    made from every fact are asked. The three sources may have `{model}` and `{seed}` in them, as those of
    data."""

    fluency: int = 100
    text: str = ""
    real_text: str = ""
    bystanders: str = ""
    tasks: tuple[str, ...] = ()
    task_limit: int = 0
    forms: tuple[str, ...] = ()
    automatic: bool = False


@dataclass(frozen=True)
class Bench:
    """Everything is crossed: models x data x runs (x alphas x batch sizes) x edits x seeds.

    `edits`: how many facts are edited; `sample`: the first ones of the data, or others drawn for every seed
    (the default where there are several);
    `settings`: of `EditConfig`, by dotted name, for all runs.
    """

    title: str
    models: tuple[ModelEntry, ...]
    data: tuple[DataEntry, ...]
    runs: tuple[Run, ...]
    tables: tuple[str, ...] = ("methods",)
    edits: tuple[int, ...] = (100,)
    seeds: tuple[int, ...] = (0,)
    sample: Sample = "first"
    settings: Settings = field(default_factory=dict)
    measure: Measures = field(default_factory=Measures)


def read_bench(path: str | Path) -> Bench:
    """The benchmark of a TOML or JSON file. Raises ConfigError with what is wrong in it.

    Relative paths of models and data are relative to the file's folder where they exist there.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        data = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        hint = "give a file, or a name from hubedit bench --list"
        raise ConfigError(f"cannot read {path}: {error.strerror or error}", hint) from error
    except (tomllib.TOMLDecodeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        hint = "mend that place; docs/bench.md describes the file"
        raise ConfigError(f"{path} is neither TOML nor JSON: {error}", hint) from error
    if not isinstance(data, Mapping):
        raise ConfigError(f"{path} holds no benchmark", "see docs/bench.md")
    try:
        return parse(data, str(path), path.parent)
    except ConfigError as error:
        raise ConfigError(error.message, error.hint or "docs/bench.md describes the file") from error


def parse(data: Mapping[str, Any], source: str = "benchmark", folder: Path | None = None) -> Bench:
    """The benchmark of a mapping as TOML gives it. Raises ConfigError; `source` is for its messages."""
    top = _Reader(data, source)
    models = tuple(_model(_Reader(m, f"{source}: models"), folder) for m in top.tables("models"))
    found = tuple(_data(_Reader(d, f"{source}: data"), folder) for d in top.tables("data"))
    alphas, batch_sizes = top.texts("alphas"), top.numbers("batch_sizes")
    runs = tuple(_run(_Reader(r, f"{source}: runs"), alphas, batch_sizes) for r in top.tables("runs"))
    measure = _Reader(top.table("measure"), f"{source}: measure")
    default = Measures()
    measures = Measures(
        measure.number("fluency", default.fluency),
        _place(measure.text("text", ""), folder),
        _place(measure.text("real_text", ""), folder),
        _place(measure.text("bystanders", ""), folder),
        measure.texts("tasks"),
        measure.number("task_limit", 0),
        measure.texts("forms"),
        measure.flag("automatic"),
    )
    if unknown := [form for form in measures.forms if form not in FORMS]:
        raise ConfigError(f"{source}: unknown form {unknown[0]!r}", f"one of: {', '.join(FORMS)}")
    measure.end()
    seeds = top.numbers("seeds") or (0,)
    # seeds that edit the same facts would make intervals of next to no width
    sample = top.choice("sample", ("first", "random"), "first" if len(seeds) == 1 else "random")
    bench = Bench(
        top.text("title", Path(source).stem),
        models,
        found,
        runs,
        top.texts("tables") or ("methods",),
        top.numbers("edits") or (100,),
        seeds,
        "random" if sample == "random" else "first",
        top.table("set"),
        measures,
    )
    top.end()
    for table in bench.tables:
        if table not in TABLES:
            raise ConfigError(f"{source}: unknown table {table!r}", f"one of: {', '.join(TABLES)}")
    if not bench.runs:
        raise ConfigError(f"{source}: no runs", 'write [[runs]] with method = "joint"')
    if min(bench.edits) < 1:
        raise ConfigError(f"{source}: edits must be at least 1")
    return bench


def _model(at: _Reader, folder: Path | None) -> ModelEntry:
    ref = _place(at.text("ref"), folder)
    name = at.text("name", ref.rstrip("/").rpartition("/")[2])
    entry = ModelEntry(name, ref, at.text("preset", ""))
    at.end()
    return entry


def _data(at: _Reader, folder: Path | None) -> DataEntry:
    source = _place(at.text("source"), folder)
    entry = DataEntry(at.text("name", Path(source).stem), source)
    at.end()
    return entry


def _run(at: _Reader, alphas: Sequence[str], batch_sizes: Sequence[int]) -> Run:
    method = at.choice("method", tuple(METHODS))
    own = at.texts("alphas")
    if own and not METHODS[method].balanced:
        raise ConfigError(
            f"{at.source}: {method} has no alpha",
            f"only {' and '.join(m for m in METHODS if METHODS[m].balanced)} have one",
        )
    sizes, way = at.numbers("batch_sizes"), METHODS[method].ordered
    if sizes and way != "batches":
        raise ConfigError(
            f"{at.source}: {method} knows no batches: its {way} follow one another", "leave it out"
        )
    shares = (own or tuple(alphas)) if METHODS[method].balanced else ()
    for share in shares:
        try:
            parse_alpha(share)
        except ConfigError as error:
            raise ConfigError(f"{at.source}: {error.message}", error.hint) from error
    run = Run(
        method,
        at.text("label", METHODS[method].label),
        shares,
        sizes or tuple(batch_sizes),
        at.flag("published"),
        at.table("set"),
    )
    at.end()
    return run


def _place(text: str, folder: Path | None) -> str:
    """A path relative to the configuration's folder, where that is there; else the text as it is."""
    if folder is not None and text and not Path(text).is_absolute() and (folder / text).exists():
        return str(folder / text)
    return text


class _Reader:
    """Takes typed values out of a mapping; what nobody took is an error."""

    def __init__(self, data: Any, source: str) -> None:
        if not isinstance(data, Mapping):
            raise ConfigError(f"{source}: a table was expected, not {data!r}")
        self._data, self.source, self._taken = data, source, set[str]()

    def _take(self, key: str, kind: type, default: Any, what: str) -> Any:
        self._taken.add(key)
        value = self._data.get(key, default)
        if value is None:
            raise ConfigError(f"{self.source}: {key} is missing")
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ConfigError(f"{self.source}: {key} must be {what}, not {value!r}")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        return str(self._take(key, str, default, "text"))

    def number(self, key: str, default: int) -> int:
        value = int(self._take(key, int, default, "a whole number"))
        if value < 0:
            raise ConfigError(f"{self.source}: {key} must not be negative")
        return value

    def flag(self, key: str) -> bool:
        return bool(self._take(key, bool, False, "true or false"))

    def choice(self, key: str, known: Sequence[str], default: str | None = None) -> str:
        value = self.text(key, default)
        if value not in known:
            raise ConfigError(f"{self.source}: unknown {key} {value!r}", f"one of: {', '.join(known)}")
        return value

    def table(self, key: str) -> Settings:
        found: Settings = self._take(key, Mapping, {}, "a table")
        return dict(found)

    def tables(self, key: str) -> list[Any]:
        return list(self._take(key, list, [], "a list of tables"))

    def texts(self, key: str) -> tuple[str, ...]:
        """Text or numbers: alpha may be 0.3 or "auto"."""
        values = self._take(key, list, [], "a list")
        return tuple(value if isinstance(value, str) else f"{value:g}" for value in map(self._plain, values))

    def numbers(self, key: str) -> tuple[int, ...]:
        values = self._take(key, list, [], "a list")
        if key in self._data and (not values or len(set(map(str, values))) < len(values)):
            raise ConfigError(f"{self.source}: {key} must have values, each of them once, not {values}")
        for value in values:
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise ConfigError(f"{self.source}: {key} must be whole numbers from 0 up, not {value!r}")
        return tuple(values)

    def _plain(self, value: Any) -> str | int | float:
        if isinstance(value, (str, int, float)) and not isinstance(value, bool):
            return value
        raise ConfigError(f"{self.source}: text or a number was expected, not {value!r}")

    def end(self) -> None:
        unknown = sorted(set(self._data) - self._taken)
        if unknown:
            known = ", ".join(sorted(self._taken))
            raise ConfigError(f"{self.source}: unknown setting {unknown[0]!r}", f"known: {known}")
