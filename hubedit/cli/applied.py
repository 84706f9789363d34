"""How a written patch is shown: a table of facts, a summary, and a warning about what still fails."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.text import Text

from hubedit.cli.escape import escaped
from hubedit.cli.evaluated import summary
from hubedit.cli.output import Output, mark, table
from hubedit.cli.progress import duration
from hubedit.facts.answers import clip
from hubedit.presets import METHODS
from hubedit.report import about
from hubedit.report.markup import plural
from hubedit.report.measures import measures

if TYPE_CHECKING:
    from rich.table import Table

    from hubedit.evaluate import Outcome
    from hubedit.patch.again import Comparison
    from hubedit.pipeline import Applied

_FOLD, _FIRST, _MOST, _CHANGED = 40, 20, 40, 3
# of fewer facts no share says anything: they are shown in a few lines, and all figures are in the patch
_FEW = 5
_LONG = 44


def show(sink: Output, applied: Applied, again: Comparison | None = None) -> None:
    """Prints the result of `apply_facts`, and on stderr which facts still fail. `again`: with the patch that
    this one repeats."""
    report = applied.report
    value = _value(applied)
    rows: list[Any] = []
    if again is not None:
        value["again"] = {"same": again.same, "differs": again.differs}
        rows = [Text(), Text("the same bytes as the patch that it repeats" if again.same else "")]
    sink.data(value, human=lambda: Group(*_tables(applied), *rows), brief=str(applied.path))
    if again is not None and not again.same:
        sink.warn("not the same bytes as the patch that it repeats:", *again.differs)
    if report.failed:
        lines = [f"{o.fact.prompt} -> {o.fact.target} (says: {_cut(o.after)})" for o in report.failed]
        left = len(lines) - _MOST
        more = [f"and {left} more, in {applied.path / 'report.json'}"] if left > 0 else []
        weighs = "prefer" in METHODS[applied.patch.record["method"]].settings
        other = "add --prefer success" if weighs else "leave out --method, whose settings suit larger models"
        more.append(f"give the target as the model itself writes it, edit fewer facts, or {other}")
        total = plural(len(report.outcomes), "fact")
        count = f"{len(lines)} of {total} still {'fail' if len(lines) > 1 else 'fails'}:"
        sink.warn(count, *lines[:_MOST], *more)
    _tell_changed(sink, applied)


def _tell_changed(sink: Output, applied: Applied) -> None:
    """The first answers that should have stayed and did not: a share does not say which."""
    changed = [case for case in applied.report.cases if case.kind in ("locality", "neighbourhood")]
    if changed:
        lines = [
            f"{case.prompt} (said: {_cut(clip(case.before))}, says: {_cut(clip(case.after))})"
            for case in changed[:_CHANGED]
        ]
        left = len(changed) - len(lines)
        more = [f"and {left} more"] if left else []
        sink.warn(f"{plural(len(changed), 'answer')} that should stay changed:", *lines, *more)


def facts_table(outcomes: Sequence[Outcome], *, ranks: bool = False) -> Table:
    """Prompt, target, what the model said before and says after, success; `ranks`: the rank of the target's
    first token too."""
    rank = ("rank (first token)",) if ranks else ()
    rows = [
        (
            o.fact.prompt,
            o.fact.target,
            _cut(o.before),
            _cut(o.after),
            *([f"{o.rank_before:,} -> {o.rank_after:,}"] if ranks else []),
            mark(o.success),
        )
        for o in outcomes
    ]
    return table(("prompt", "target", "before", "after", *rank, "ok"), rows, right=rank)


def table_of(rows: Iterable[tuple[str, str]]) -> Table:
    """Names and values, one pair a line."""
    from rich.table import Table

    made = Table.grid(padding=(0, 2))
    made.add_column(style="bold")
    made.add_column(overflow="fold")
    for name, value in rows:
        made.add_row(Text(escaped(name)), Text(escaped(value)))
    return made


def size(count: int) -> str:
    """Bytes as `12.3 MB`."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def _tables(applied: Applied) -> list[Any]:
    outcomes = list(applied.report.outcomes)
    if len(outcomes) < _FEW:
        return [facts_table(outcomes), Text(), table_of(few_rows(applied))]
    shown, note = outcomes, ""
    if len(outcomes) > _FOLD:
        failed = [o for o in outcomes if not o.success]
        good = [o for o in outcomes if o.success]
        shown = failed[:_MOST] + good[:_FIRST]
        note = f"{len(shown)} of {len(outcomes):,} facts are shown; all are in report.json"
    parts: list[Any] = [facts_table(shown, ranks=True), Text()]
    if note:
        parts[1:1] = [Text(note, style="dim")]
    return [*parts, summary(applied.content), Text(), table_of(summary_rows(applied))]


def few_rows(applied: Applied) -> list[tuple[str, str]]:
    """What came out of a few facts: how many give the new answer in other words, what follows from them, what
    stays, what a smaller rank loses, and where the rest stands."""
    from hubedit.model.chat import RECORD
    from hubedit.model.forms import COMPLETION

    patch, folder = applied.patch, applied.path
    found = {m.key: m for m in measures(applied.content) if m.group in ("answers", "forms", "text")}
    counted = {
        key: f"{round(m.after.value * m.n)} of {m.n}"
        for key, m in found.items()
        if m.unit == "share" and m.after is not None and m.n
    }
    forms = [f"{k.partition('/')[0]} {v}" for k, v in counted.items() if k.endswith("/success")]
    forms += [f"rephrased {counted['generalisation']}"] if "generalisation" in counted else []
    kept = [f"{key} {counted[key]}" for key in ("locality", "neighbourhood") if key in counted]
    if text := found.get("perplexity"):
        before, after = (text.text(side).partition(" (")[0] for side in ("before", "after"))
        kept.append(f"perplexity of ordinary text {before} before, {after} after")
    template = RECORD in patch.record
    made = f"{size(patch.size)}, made in {duration(patch.record['seconds'])}"
    return [
        *([("new answer", ", ".join(forms))] if forms else []),
        *(
            [("asked", f'in the chat template; a sentence as "{COMPLETION.format("...")}"')]
            if template
            else []
        ),
        *([("follows", counted["portability"])] if "portability" in counted else []),
        *([("what stays", ", ".join(kept))] if kept else []),
        ("patch", f"{folder} ({made})"),
        *_lost(patch.record),
        ("all figures", f"{folder / 'report.html'} in a browser"),
    ]


def summary_rows(applied: Applied) -> list[tuple[str, str]]:
    """What came out, for a person."""
    patch, record = applied.patch, applied.patch.record
    alpha = about.alpha(record)
    rows: list[tuple[str, str]] = [
        *([("method", record["method"])] if METHODS[record["method"]].published else []),
        ("layers", about.layers(record)),
        *([("alpha", alpha)] if alpha else []),
        ("patch", f"{size(patch.size)}, rank {patch.rank}, {plural(len(patch.factors), 'weight')}"),
    ]
    relative, norms = about.norms(record)
    if relative and norms:
        layer, kind, norm = max(norms, key=lambda found: found[2])
        rows.append(("largest change", f"{norm:.2g} times the norm of its weight ({kind} of layer {layer})"))
    rows += _lost(record)
    rows.append(("time", duration(record["seconds"])))
    peak = record["peak_memory"]
    if peak:
        device = f", {size(peak['device'])} on the GPU" if "device" in peak else ""
        rows.append(("peak memory", f"{size(peak['process'])}{device}" if "process" in peak else device[2:]))
    rows.append(("path", str(applied.path)))
    return rows


def _lost(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the truncation to a smaller rank has lost at most, over the edited weights."""
    if "truncation" not in record:
        return []
    lost = [100 * (1 - min(record["truncation"][of].values(), default=1.0)) for of in ("energy", "text")]
    parts = f"{lost[0]:.2g} % of a weight's change, {lost[1]:.2g} % of what it does to ordinary text"
    return [(f"lost at rank {record['truncation']['rank']}", f"at most {parts}")]


def _value(applied: Applied) -> dict[str, Any]:
    patch, record = applied.patch, applied.patch.record
    names = (
        "base",
        "method",
        "layers",
        "layers_from",
        "alpha",
        "alpha_from",
        "perplexity",
        "seconds",
        "peak_memory",
    )
    return {
        "path": applied.path,
        **{name: record[name] for name in names},
        "rank": patch.rank,
        "size": patch.size,
        "energy": record.get("truncation", {}).get("energy"),
        **applied.content,
        "failed": len(applied.report.failed),
    }


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONG else f"{line[: _LONG - 1].rstrip()}…"
