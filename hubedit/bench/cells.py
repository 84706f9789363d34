"""From a benchmark to its cells: one edit run each, with the configuration it is computed with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from hubedit.bench.configuration import Bench, DataEntry, ModelEntry, Run, Settings
from hubedit.config import EditConfig, from_dict, to_dict
from hubedit.errors import ConfigError
from hubedit.presets import METHODS, PRESETS, check_settings, method_defaults, preset


@dataclass(frozen=True)
class Cell:
    """One edit run. `alpha`: as the configuration has it ("" for a method without); `batch_size`: 0 is all
    edits at once."""

    model: ModelEntry
    data: DataEntry
    method: str
    label: str
    alpha: str
    batch_size: int
    edits: int
    seed: int
    config: EditConfig

    def identity(self) -> dict[str, Any]:
        """What identifies the cell among others of the benchmark, as JSON data. No path is in it."""
        kept = {key: value for key, value in asdict(self).items() if key not in ("model", "data", "config")}
        ref = self.model.ref.rstrip("/").rpartition("/")[2]
        return {"model": self.model.name, "ref": ref, "data": self.data.name, **kept}

    @property
    def title(self) -> str:
        """For progress messages."""
        alpha = f" alpha {self.alpha}" if self.alpha else ""
        batch = f" in batches of {self.batch_size}" if self.batch_size else ""
        return (
            f"{self.model.name}, {self.data.name}, {self.edits} edits{batch}: {self.label}{alpha}, "
            f"seed {self.seed}"
        )


def cells(bench: Bench) -> tuple[Cell, ...]:
    """All cells, model by model. Raises ConfigError for unknown settings, and where tables could not
    tell two runs apart."""
    found: dict[tuple[object, ...], Cell] = {}
    for model in bench.models:
        for data in bench.data:
            for edits in bench.edits:
                for seed in bench.seeds:
                    for cell in _runs(bench, model, data, edits, seed):
                        # two batch sizes above the number of edits are the same run
                        same = found.setdefault((model, data, *cell.identity().items()), cell)
                        if same != cell:
                            raise ConfigError(
                                f"two runs of {cell.method} are both called {cell.label!r}",
                                "give each a label of its own",
                            )
    return tuple(found.values())


def _runs(bench: Bench, model: ModelEntry, data: DataEntry, edits: int, seed: int) -> Iterator[Cell]:
    for run in bench.runs:
        try:
            own = override(base_config(run, model), run.settings)
            check_settings(own)
            base = override(own, {k: v for k, v in bench.settings.items() if k not in run.settings})
        except ConfigError as error:
            hint = error.hint or "docs/config.md has every setting with its type"
            raise ConfigError(f"run {run.label}: {error.message}", hint) from error
        base = replace(
            base,
            seed=seed,
            trace=replace(base.trace, seed=seed),
            stats=replace(base.stats, seed=seed),
        )
        for alpha in run.alphas or (None,):
            sizes = run.batch_sizes if METHODS[run.method].ordered == "batches" else ()
            for size in sizes or (base.batch_size,):
                config = replace(base, batch_size=size if 0 < size < edits else 0)
                if alpha is not None:
                    config = replace(config, alpha=alpha)
                shown = config.alpha if METHODS[run.method].balanced else ""
                yield Cell(model, data, run.method, run.label, shown, config.batch_size, edits, seed, config)


def base_config(run: Run, model: ModelEntry) -> EditConfig:
    """What a run's settings are changes of: a method's published ones for the model where it has a preset,
    with layers from the trace where it has none; hubedit's own defaults of its own method. A model that is
    damaged is measured, not refused.

    Raises ConfigError where a run asks for published settings that the method or the model does not have.
    """
    published = METHODS[run.method].published
    if run.published and not published:
        raise ConfigError(
            f"{run.method} is hubedit's own method and has no published settings",
            'leave out published, or take the paper\'s method = "intattn"',
        )
    if run.published and model.preset.strip().lower() not in PRESETS:
        raise ConfigError(
            f"{run.method} has no published settings for {model.name}, which names no published preset",
            f"presets: {', '.join(PRESETS)}; without published its general settings are taken",
        )
    found = preset(model.preset, run.method) if model.preset and published else method_defaults(run.method)
    return replace(found, collapse="tell")


def override(config: EditConfig, settings: Settings) -> EditConfig:
    """`config` with other values under dotted names: {"targets.kl": 0.5}. Raises ConfigError.

    A number for a setting that is text (alpha, layers) is written as text.
    """
    data = to_dict(config)
    for name, value in settings.items():
        place: Any = data
        *groups, leaf = name.split(".")
        for group in groups:
            place = place.get(group)
            if not isinstance(place, dict):
                raise ConfigError(f"unknown setting {name!r}", f"{group!r} is no group of settings")
        if leaf not in place:
            raise ConfigError(f"unknown setting {name!r}", f"known: {', '.join(sorted(place))}")
        place[leaf] = _fitting(name, value, place[leaf])
    return from_dict(EditConfig, data)


def _fitting(name: str, value: Any, old: Any) -> Any:
    plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    if isinstance(old, str) and plain:
        return f"{value:g}"
    if isinstance(old, float) and plain:
        return float(value)
    if type(value) is not type(old):
        raise ConfigError(f"{name} must be {type(old).__name__}, not {value!r}")
    return value
