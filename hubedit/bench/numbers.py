"""Rows of the results file as one line a run: means over replicates with 95 % intervals."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from typing import Any

from hubedit.bench.cells import cells
from hubedit.bench.configuration import Bench
from hubedit.bench.results import Row
from hubedit.config import EditConfig, to_dict
from hubedit.environment import portable

# two-sided 95 % quantiles of Student's t for 1 to 30 degrees of freedom
# fmt: off
_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)
# fmt: on


@dataclass(frozen=True)
class Number:
    """A mean over `n` replicates (seeds, and models of one name) with its 95 % interval.

    Of one replicate it is the bootstrap interval over its facts, where that was measured; of several it is
    Student's, over the replicates.
    """

    mean: float
    low: float | None = None
    high: float | None = None
    n: int = 1


@dataclass(frozen=True)
class Line:
    """One run in all its replicates. `numbers`: by metric, after the edit; `before`: of the unedited model,
    `in_context`: of it with the fact in front of the prompt; `errors`: of the replicates that failed;
    `found_alpha`: attention's mean share over the layers as it was used, `traced_alpha`: as it was traced."""

    model: str
    data: str
    method: str
    label: str
    alpha: str
    batch_size: int
    edits: int
    numbers: Mapping[str, Number] = field(default_factory=dict)
    before: Mapping[str, Number] = field(default_factory=dict)
    in_context: Mapping[str, Number] = field(default_factory=dict)
    errors: tuple[str, ...] = ()
    found_alpha: float | None = None
    traced_alpha: float | None = None
    replicates: int = 0

    @property
    def share(self) -> float | None:
        """alpha where it is a number, and not traced."""
        try:
            return float(self.alpha)
        except ValueError:
            return None


def lines(bench: Bench, rows: Sequence[Row]) -> list[Line]:
    """The benchmark's runs in its order, those without a row left out. A later row of a cell replaces an
    earlier one; rows of other benchmarks in the same file, and of other settings, are passed over."""
    wanted = {tuple(cell.identity().items()): settings(cell.config) for cell in cells(bench)}
    latest = {}
    for row in rows:
        data = tuple(row["cell"].items())
        if data in wanted and row.get("config") == wanted[data]:
            latest[data] = row
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for cell in wanted:
        group = tuple(value for key, value in cell if key not in ("ref", "seed"))
        if cell in latest:
            groups.setdefault(group, []).append(latest[cell])
    return [_line(group) for group in groups.values()]


def outdated(bench: Bench, rows: Sequence[Row], keys: Collection[str] | None = None) -> int:
    """How many rows are of this benchmark's cells and of other settings than they have now, or, where the
    `keys` of their rows are known, of other models or data."""
    wanted = {tuple(cell.identity().items()): settings(cell.config) for cell in cells(bench)}
    own = [(row, wanted.get(tuple(row["cell"].items()))) for row in rows]
    return sum(
        row.get("config") != config or (keys is not None and row["key"] not in keys)
        for row, config in own
        if config is not None
    )


def mixed(bench: Bench, rows: Sequence[Row]) -> int:
    """How many cells have rows of one configuration on several models, data or machines."""
    wanted = {tuple(cell.identity().items()): settings(cell.config) for cell in cells(bench)}
    keys: dict[tuple[Any, ...], set[str]] = {}
    for row in rows:
        data = tuple(row["cell"].items())
        if data in wanted and row.get("config") == wanted[data]:
            keys.setdefault(data, set()).add(row["key"])
    return sum(len(own) > 1 for own in keys.values())


def settings(config: EditConfig) -> dict[str, Any]:
    """A configuration as the results file has it: a corpus on this machine is its own name."""
    data = to_dict(config)
    data["stats"]["corpus"] = portable(config.stats.corpus)
    return data


def _line(group: Sequence[Row]) -> Line:
    cell = group[0]["cell"]
    good = [row for row in group if "error" not in row]
    edits = [row.get("edit", {}) for row in good]
    names = dict.fromkeys(name for row in good for name in row["metrics"])
    after, before, in_context = (
        {name: mean(own) for name in names if (own := _entries(good, name, side))}
        for side in ("after", "before", "in_context")
    )
    return Line(
        **{key: cell[key] for key in ("model", "data", "method", "label", "alpha", "batch_size", "edits")},
        numbers=after,
        before=before,
        in_context=in_context,
        errors=tuple(f"{row['error']['kind']}: {row['error']['message']}" for row in group if "error" in row),
        found_alpha=_share([edit["alpha_mean"] for edit in edits if "alpha_mean" in edit]),
        traced_alpha=_share([edit["alpha_traced"] for edit in edits if "alpha_traced" in edit]),
        replicates=len(group),
    )


def _share(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _entries(rows: Sequence[Row], name: str, side: str) -> list[Number]:
    found = [row["metrics"][name] for row in rows if name in row["metrics"]]
    ends = ("low", "high") if side == "after" else ("", "")
    return [Number(entry[side], *(entry.get(end) for end in ends)) for entry in found if side in entry]


def mean(values: Sequence[Number]) -> Number:
    """The mean of replicates: m ± t s / sqrt(n) with s over n - 1; one replicate stays as it is."""
    if len(values) == 1:
        return values[0]
    n = len(values)
    middle = sum(v.mean for v in values) / n
    spread = sqrt(sum((v.mean - middle) ** 2 for v in values) / (n - 1))
    half = quantile(n - 1) * spread / sqrt(n)
    return Number(middle, middle - half, middle + half, n)


def quantile(freedom: int) -> float:
    """The 97.5 % point of Student's t; above 30 degrees of freedom by the first term of its expansion
    (Cornish and Fisher), which is right to three digits there."""
    if freedom <= len(_T):
        return _T[freedom - 1]
    z = 1.959964
    return z + (z**3 + z) / (4 * freedom)
