"""The tables of numbers before and after an edit, one for each group of measures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hubedit.report.markup import number, plural, without_paths
from hubedit.report.measures import GROUPS, Json, measures, variant


@dataclass(frozen=True)
class Table:
    """Cells are text; the first column holds names, the others values."""

    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables(report: Json) -> tuple[Table, ...]:
    """Before and after, a table a group; with another column for the merged model where both were read."""
    both = isinstance(report.get("variants", {}).get("merged"), Mapping)
    own = measures(report)
    merged = {(m.group, m.key): m for m in measures(variant(report, "merged"))} if both else {}
    names = {(m.group, m.key): m for m in own}
    names |= {key: m for key, m in merged.items() if key not in names}
    made = []
    for group, (title, note) in GROUPS.items():
        rows: list[tuple[str, ...]] = []
        ranges = shares = False
        for key, measure in names.items():
            if key[0] != group:
                continue
            other = merged.get(key)
            shown = measure if measure in own else None
            ranges |= any(v is not None and v.low is not None for v in (measure.after, measure.before))
            shares |= measure.unit == "share"
            cells = [measure.name, measure.text("before"), measure.text("in_context")]
            cells.append(shown.text("after") if shown else "")
            cells += [other.text("after") if other else ""] if both else []
            rows.append((*cells, "" if measure.n is None else f"{measure.n:,}"))
        if rows:
            after = ("After, adapter", "After, merged") if both else ("After",)
            columns = ("Measure", "Before", "In context", *after, "n")
            stored = " ".join(
                [_corpus(report) if group == "text" else note, _brackets(report, shares) if ranges else ""]
            )
            made.append(_full(Table(title, stored.strip(), columns, tuple(rows))))
    return tuple(made)


def _brackets(report: Json, shares: bool) -> str:
    more = "; Wilson's where a share is 0 or 100 %" if shares and report.get("interval_method") else ""
    return f"In brackets: 95 % bootstrap intervals{more}."


def _corpus(report: Json) -> str:
    """Which text perplexity and divergence were read on."""
    stored = report.get("text")
    if not isinstance(stored, Mapping) or not stored.get("corpus"):
        return ""
    own = stored["corpus"] == "self"
    source = "that the base model wrote itself" if own else f"of {without_paths(stored['corpus'])}"
    rows = plural(int(number(stored.get("rows")) or 0), "row")
    use = ""
    if stored.get("used") is not None:
        use = " The edit was not made or chosen on them."
        if stored["used"]:
            use = " The edit was chosen on the same rows, so they flatter it."
    named = " They may name the edited subjects." if own else ""
    return f"Perplexity and KL: {rows} {source}; n counts their tokens.{use}{named}"


def _full(table: Table) -> Table:
    """The table without the columns in which nothing stands."""
    keep = [n for n, _ in enumerate(table.columns) if n == 0 or any(row[n] for row in table.rows)]
    rows = tuple(tuple(row[n] for n in keep) for row in table.rows)
    return Table(table.title, table.note, tuple(table.columns[n] for n in keep), rows)
