"""How an evaluation is shown, that of `hubedit apply` too: one line a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hubedit.cli.output import table

if TYPE_CHECKING:
    from rich.table import Table

_PERCENT = ("success", "generalisation", "portability", "locality", "neighbourhood")


def summary(report: Mapping[str, Any]) -> Table:
    """One line a number: before, after (as an adapter and merged, where both are there), interval and n."""
    rows = _lines(report)
    other = report.get("variants", {}).get("merged")
    if other is None:
        columns = ["measure", "before", "after", "95 % interval", "n"]
        return table(columns, rows, right=columns[1:])
    merged = {row[0]: row[2] for row in _lines({**report, **other})}
    columns = ["measure", "before", "adapter", "merged", "95 % interval", "n"]
    wide = [(*row[:3], merged.get(row[0]), *row[3:]) for row in rows]
    return table(columns, wide, right=columns[1:])


def _lines(report: Mapping[str, Any]) -> list[tuple[object, ...]]:
    """Name, before, after, interval of the last of them, n."""
    rows: list[tuple[object, ...]] = []
    alone = "metrics" not in report
    counts = report.get("counts", {})
    between = report.get("intervals_before" if alone else "intervals", {})
    old, new = report.get("metrics_before", {}), report.get("metrics", {})
    for name in _PERCENT:
        if name in old or name in new:
            interval = _percents(between.get(name))
            rows.append((name, _percent(old.get(name)), _percent(new.get(name)), interval, counts.get(name)))
    if (mean := report.get("harmonic_mean")) is not None:
        rows.append(("harmonic mean", "", _percent(mean), _percents(between.get("harmonic_mean")), None))
    blocks = ("exactly", "exact_match"), ("teacher-forced", "teacher_forced"), ("CounterFact", "counterfact")
    for title, key in blocks:
        rows += _block(title, report.get(key, {}), alone)
    if text := report.get("fluency"):
        interval = _pair(text.get("interval_before" if alone else "interval"))
        rows.append(("fluency", _number(text.get("before")), _number(text.get("after")), interval, text["n"]))
    sides = [_number(report.get(f"perplexity_{side}")) for side in ("before", "after")]
    if any(sides):
        told = report.get("perplexity", {})
        interval = _pair(told.get("interval_before" if alone else "interval"))
        rows.append(("perplexity", *sides, interval, told.get("n")))
    if kl := report.get("kl"):
        rows.append(
            ("divergence (nats a token)", "", f"{kl['mean']:.3g}", _pair(kl.get("interval")), kl["n"])
        )
    for task, metrics in report.get("tasks", {}).items():
        for metric, value in metrics.items():
            cells = [_with_error(value, side) for side in ("before", "after")]
            interval = _pair(value.get("interval_before" if alone else "interval"))
            rows.append((f"{task} {metric}", *cells, interval, value["n"]))
    return rows


def _block(title: str, block: Mapping[str, Any], alone: bool) -> list[tuple[object, ...]]:
    """Rows of the teacher-forced or CounterFact numbers, types indented by their metric."""
    sides = [_flat(block.get(side, {})) for side in ("before", "after")]
    between = _flat(block.get("intervals_before" if alone else "intervals", {}))
    counts = _flat(block.get("n", {}))
    names = list(dict.fromkeys([*sides[1], *sides[0]]))
    rows: list[tuple[object, ...]] = []
    for name in names:
        values, pair = [side.get(name) for side in sides], between.get(name)
        # a magnitude is a difference of probabilities, not a share
        plain = name.endswith("magnitude")
        cells = [_difference(value) if plain else _percent(value) for value in values]
        interval = _pair(pair, ".3f") if plain else _percents(pair)
        rows.append((f"{title}: {name.replace('_', ' ')}", *cells, interval, counts.get(name)))
    return rows


def _flat(tree: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            found |= {f"{name} {inner}": v for inner, v in value.items()}
        else:
            found[name] = value
    return found


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


def _percents(pair: Sequence[float] | None) -> str:
    return "" if pair is None else f"{100 * pair[0]:.1f} to {100 * pair[1]:.1f} %"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _difference(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _pair(pair: Sequence[float] | None, form: str = ".3g") -> str:
    return "" if pair is None else f"{pair[0]:{form}} to {pair[1]:{form}}"


def _with_error(value: Mapping[str, float], side: str) -> str:
    if side not in value:
        return ""
    error = value.get(f"stderr_{side}")
    return f"{value[side]:.4g}" + (f" ± {error:.2g}" if error is not None else "")
