"""How an evaluation is shown, that of `hubedit apply` too: one line a number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hubedit.cli.output import table
from hubedit.report.measures import Measure, measures

if TYPE_CHECKING:
    from rich.table import Table

_TITLES = {
    "exact": "exactly",
    "automatic": "from the facts",
    "teacher-forced": "teacher-forced",
    "counterfact": "CounterFact",
}
_NAMES = {"kl": "divergence (nats a token)", "real_kl": "divergence on the real text"}


def summary(report: Mapping[str, Any]) -> Table:
    """One line a number: before, in context, after (as an adapter and merged, where both are there), the
    interval of the last of them, n. Columns in which nothing stands are left out."""
    other = report.get("variants", {}).get("merged")
    merged = {(m.group, m.key): m for m in measures({**report, **other})} if other is not None else {}
    columns = ["measure", "before", "in context", "after" if other is None else "adapter", "merged"]
    columns += ["95 % interval", "n"]
    rows = []
    for measure in measures(report):
        sides = [_parts(measure, side) for side in ("before", "in_context", "after")]
        second = merged.get((measure.group, measure.key))
        last = _parts(second, "after")[0] if second is not None else ""
        interval = next((pair for value, pair in reversed(sides) if value), "")
        rows.append((_name(measure), *(value for value, _ in sides), last, interval, measure.n))
    keep = [n for n, _ in enumerate(columns) if n < 2 or any(row[n] not in ("", None) for row in rows)]
    shown = [columns[n] for n in keep]
    return table(shown, [tuple(row[n] for n in keep) for row in rows], right=shown[1:])


def _name(measure: Measure) -> str:
    title, key = _TITLES.get(measure.group, ""), _NAMES.get(measure.key, measure.key)
    name = key.replace("_", " ").replace("/", " ")
    return f"{title}: {name}" if title else name


def _parts(measure: Measure, side: str) -> tuple[str, str]:
    """The number, and its interval."""
    value, _, rest = measure.text(side).partition(" (")
    return value, rest.partition(")")[0]
