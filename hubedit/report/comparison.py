"""Several reports side by side: one table, one plot."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hubedit.report.draw import BLUE, GREEN, ORANGE, PINK, figure, png
from hubedit.report.markup import cell, clip, csv_cell
from hubedit.report.measures import GROUPS, Json, Measure, alone, measures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = (BLUE, ORANGE, GREEN, PINK, "#56B4E9", "#E69F00")
_MARKERS = "osD^vP"
_SIDES = ("value", "low", "high", "error")


@dataclass(frozen=True)
class Compared:
    """`names`: of the reports, all different; `rows`: a measure as each report has it, or None."""

    names: tuple[str, ...]
    rows: tuple[tuple[Measure | None, ...], ...]
    remarks: tuple[str, ...] = ()

    def columns(self) -> tuple[str, ...]:
        """Of the table: the measure, then one column a report."""
        return ("Measure", *self.names)

    def cells(self) -> list[tuple[str, ...]]:
        """The table's rows: after the edit, with n where the reports differ in it or there is only one."""
        made = []
        for row in self.rows:
            differ = len(row) == 1 or len({m.n for m in row if m is not None}) > 1
            made.append((_name(row), *("" if m is None else _text(m, differ) for m in row)))
        return made

    def markdown(self) -> str:
        """The table, and what must be known to read it."""
        lines = ["| " + " | ".join(cell(text) for text in self.columns()) + " |"]
        lines.append("|---|" + "---:|" * len(self.names))
        lines += ["| " + " | ".join(cell(text) for text in row) + " |" for row in self.cells()]
        return "\n".join([*lines, *(f"\n{cell(remark)}" for remark in self.remarks)]) + "\n"

    def csv(self) -> str:
        """One line a report and measure, with the plain numbers; an empty field is not measured."""
        target = io.StringIO()
        writer = csv.writer(target, lineterminator="\n")
        writer.writerow(("report", "group", "measure", "n", "before", "after", "low", "high", "stderr"))
        for name, measure in self._all():
            before, after = measure.before, measure.after
            numbers = [getattr(after, side) if after else None for side in _SIDES]
            own = [name, measure.group, measure.key, measure.n, before.value if before else None, *numbers]
            writer.writerow(list(map(csv_cell, own)))
        return target.getvalue()

    def to_json(self) -> dict[str, Any]:
        """{"reports": {name: {group: {key: {"before", "after", "low", "high", "stderr", "n"}}}},
        "remarks"}; what was not measured is absent."""
        reports: dict[str, Any] = {name: {} for name in self.names}
        for name, measure in self._all():
            entry: dict[str, Any] = {
                "n": measure.n,
                "before": measure.before.value if measure.before else None,
            }
            if measure.after is not None:
                after = measure.after
                entry |= {"after": after.value, "low": after.low, "high": after.high, "stderr": after.error}
            known = {key: value for key, value in entry.items() if value is not None}
            reports[name].setdefault(measure.group, {})[measure.key] = known
        return {"reports": reports, "remarks": list(self.remarks)}

    def png(self) -> bytes | None:
        """The plot: every share after the edit with its interval; None where no report has one."""
        rows = [row for row in self.rows if any(m is not None and _drawn(m) for m in row)]
        return png(lambda: _draw(self.names, rows)) if rows else None

    def _all(self) -> list[tuple[str, Measure]]:
        return [(n, m) for row in self.rows for n, m in zip(self.names, row, strict=True) if m is not None]


def compare(reports: Sequence[tuple[str, Json, Json]]) -> Compared:
    """`reports`: (name, content of hubedit.json, content of report.json). Pure."""
    names = _distinct([name for name, _, _ in reports])
    found = [{(m.group, m.key): m for m in measures(report)} for _, _, report in reports]
    keys = list(dict.fromkeys(key for own in found for key in own))
    keys.sort(key=lambda key: list(GROUPS).index(key[0]))
    rows = tuple(tuple(own.get(key) for own in found) for key in keys)
    return Compared(tuple(names), rows, tuple(_remarks(reports)))


def _remarks(reports: Sequence[tuple[str, Json, Json]]) -> list[str]:
    """Why numbers of these reports may not be comparable."""
    warnings = []
    facts = {(record.get("facts") or {}).get("sha256") for _, record, _ in reports}
    if len(facts - {None}) > 1:
        warnings.append("The reports are about different facts.")
    bases = {(b.get("ref"), b.get("commit")) for _, record, _ in reports if (b := record.get("base"))}
    if len(bases) > 1:
        warnings.append("The reports are about different base models.")
    if any(alone(report) for _, _, report in reports):
        warnings.append("A report of a model that was not edited has only values before.")
    return warnings


def _distinct(names: Sequence[str]) -> list[str]:
    made: list[str] = []
    for name in (clip(name, 60) or "report" for name in names):
        new, number = name, 2
        while new in made:
            new, number = f"{name} ({number})", number + 1
        made.append(new)
    return made


def _name(row: Sequence[Measure | None]) -> str:
    measure = next(m for m in row if m is not None)
    named = {"exact": "exact match, ", "teacher-forced": "teacher-forced, ", "counterfact": "CounterFact, "}
    prefix = named.get(measure.group, "")
    return prefix + measure.name.partition(": ")[0] if measure.group == "answers" else prefix + measure.name


def _text(measure: Measure, count: bool) -> str:
    text = measure.text("after") or f"{measure.text('before')} (not edited)"
    return f"{text} (n = {measure.n:,})" if count and measure.n is not None else text


def _drawn(measure: Measure) -> bool:
    return measure.unit == "share" and measure.after is not None


def _draw(names: Sequence[str], rows: Sequence[Sequence[Measure | None]]) -> Figure:
    step = 0.7 / max(len(names), 1)
    made = figure(8, 1.4 + len(rows) * max(0.4, 0.16 * len(names)))
    axis = made.subplots()
    for place, name in enumerate(names):
        colour, marker = _COLOURS[place % len(_COLOURS)], _MARKERS[place % len(_MARKERS)]
        label: str | None = name
        for line, row in enumerate(rows):
            measure = row[place]
            if measure is None or measure.after is None or not _drawn(measure):
                continue
            y, after = line + (place - (len(names) - 1) / 2) * step, measure.after
            if after.low is not None and after.high is not None:
                axis.plot([100 * after.low, 100 * after.high], [y, y], color=colour, linewidth=1.4)
            axis.plot(
                [100 * after.value], [y], color=colour, marker=marker, markersize=6, linestyle="", label=label
            )
            label = None
    axis.set_yticks(range(len(rows)), [_name(row) for row in rows], fontsize=9)
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_xlim(-2, 102)
    axis.set_xlabel("after the edit, % (lines: 95 % intervals)")
    axis.set_axisbelow(True)
    axis.grid(axis="x", color="black", alpha=0.12)
    axis.spines[["top", "right"]].set_visible(False)
    made.legend(frameon=False, fontsize=9, loc="outside lower center", ncols=min(len(names), 3))
    return made
