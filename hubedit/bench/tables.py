"""Results as tables in the shape of the published ones; what was not measured is absent, never zero."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hubedit.bench.metrics import EVERY, PERPLEXITY, Metric, tasks, text
from hubedit.bench.numbers import Line, Number
from hubedit.bench.plan import Bench
from hubedit.bench.published import AS_PRINTED, JOINT, SOURCE, Published, printed_numbers
from hubedit.presets import METHODS
from hubedit.report.markup import cell

_PRINTED = {"alpha": (1, 2), "modules": (3,), "methods": (3,), "batches": (), "rome": (4,), "abilities": (5,)}
_TITLES = {
    "alpha": "Shares of attention (alpha)",
    "modules": "Attention only, MLP only, joint",
    "rome": "ROME and IntAttn-Edit for ROME",
    "methods": "Methods",
    "batches": "Edits at once and in sequence",
    "abilities": "General abilities after the edits",
}
_SIDES = {"before": "Before edit", "in_context": "In context"}


@dataclass(frozen=True)
class Table:
    """Cells are text, "" where nothing was measured; the first `heads` columns are names."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    heads: int = 1
    notes: tuple[str, ...] = ()

    def markdown(self) -> str:
        """With its title and notes."""
        dashes = "|".join("---" if n < self.heads else "---:" for n in range(len(self.columns)))
        rows = ["| " + " | ".join(cell(word) for word in row) + " |" for row in (self.columns, *self.rows)]
        return "\n".join([f"## {cell(self.title)}", "", rows[0], f"|{dashes}|", *rows[1:], ""]) + "".join(
            f"\n{cell(note)}\n" for note in self.notes
        )


def tables(bench: Bench, found: Sequence[Line]) -> list[Table]:
    """The tables that the benchmark asks for, those without a single number left out."""
    made: list[Table] = []
    for kind in bench.tables:
        made += _BUILD[kind](kind, found)
    return [table for table in made if table.rows]


def markdown(bench: Bench, made: Sequence[Table]) -> str:
    """All tables as one document."""
    intro = (
        "Numbers are means, with 95 % intervals in brackets: over seeds and models of one name where there "
        "are several (Student), else over the facts (bootstrap). Edit Success, Portability, Locality and "
        "Fluency are KnowEdit's, teacher-forced; ES, PS, NS and their harmonic mean S are CounterFact's, of "
        "probabilities; the others compare greedy answers. Before edit: the unedited model; in context: it "
        "with the fact written in front of the prompt. Time and memory are those of the edit. An empty cell "
        "was not measured."
    )
    return "\n".join([f"# {cell(bench.title)}", "", intro, "", *(table.markdown() for table in made)])


def _alpha(kind: str, found: Sequence[Line]) -> list[Table]:
    """Tables 1 and 2: a column for each alpha, traced ones last."""
    made = []
    for name, group in _by(
        found, lambda line: (line.model, line.data, line.label, line.edits, line.batch_size)
    ):
        own = sorted(
            (line for line in group if line.alpha), key=lambda line: (line.share is None, _place(line))
        )
        if len(own) > 1:
            heads = [_alpha_name(line) for line in own]
            title = f"{_TITLES[kind]}: {name[2]} on {name[0]}, {name[1]}, {_batch(own[0])}"
            made.append(_across(kind, title, own, heads, EVERY))
    return made


def _modules(kind: str, found: Sequence[Line]) -> list[Table]:
    """Table 3: MLP only, attention only, joint."""
    own = [line for line in found if _both_sites(line)]

    def name(line: Line) -> str:
        share = line.share
        if share in (0.0, 1.0):
            return "MLP-only (alpha 0)" if share == 0 else "Attn-only (alpha 1)"
        return f"{line.label} (alpha {_alpha_name(line)})"

    return [_down(kind, _TITLES[kind], own, [name(line) for line in own])] if own else []


def _rome(kind: str, found: Sequence[Line]) -> list[Table]:
    """Table 4: a column for each method of ROME's kind."""
    made = []
    for name, group in _by(found, lambda line: (line.model, line.data, line.edits, line.batch_size)):
        own = [line for line in group if METHODS[line.method].one_layer and not METHODS[line.method].trained]
        if own:
            title = f"{_TITLES[kind]}: {name[0]}, {name[1]}, {_batch(own[0])}"
            made.append(_across(kind, title, own, _names(own), EVERY))
    return made


def _methods(kind: str, found: Sequence[Line]) -> list[Table]:
    return [_down(kind, _TITLES[kind], found, _names(found))] if found else []


def _abilities(kind: str, found: Sequence[Line]) -> list[Table]:
    """Table 5: tasks and perplexity, before and after each method."""
    made = []
    for name, own in _by(found, lambda line: (line.model, line.data, line.edits)):
        title = f"{_TITLES[kind]}: {name[0]}, {name[1]}, {name[2]} edits"
        made.append(_across(kind, title, own, _names(own), (*tasks(own), PERPLEXITY)))
    return made


_BUILD: dict[str, Callable[[str, Sequence[Line]], list[Table]]] = {
    "alpha": _alpha,
    "modules": _modules,
    "rome": _rome,
    "methods": _methods,
    "batches": _methods,
    "abilities": _abilities,
}


def _across(
    kind: str, title: str, own: Sequence[Line], heads: Sequence[str], metrics: Sequence[Metric]
) -> Table:
    """Metrics down, the unedited model and runs across; under each metric the printed numbers, where there
    are some."""
    printed = [printed_beside(kind, line) for line in own]
    sides = [name for name in _SIDES if any(getattr(line, name) for line in own)]
    rows = []
    for metric in metrics:
        texts = [text(line.numbers.get(metric.key), metric, line) for line in own]
        unedited = [text(_unedited(own, side, metric), metric) for side in sides]
        if any(metric.key in line.numbers for line in own) or any(unedited):
            rows.append((metric.name, *unedited, *texts))
            found = [_match(p, metric) for p in printed]
            old = _match(printed_numbers((5,), own[0].model, own[0].data, "before"), metric)
            before = [old if side == "before" and kind == "abilities" else None for side in sides]
            if any((*before, *found)):
                tables = sorted({p.table for p in (*before, *found) if p})
                where = f"  published (table {', '.join(map(str, tables))})"
                rows.append((where, *(p.text if p else "" for p in (*before, *found))))
    if not rows and any(line.errors for line in own):
        rows = [("", *("" for _ in sides), *(text(None, PERPLEXITY, line) for line in own))]
    columns = ("Metric", *(_SIDES[side] for side in sides), *heads)
    return Table(kind, title, columns, tuple(rows), 1, _notes(own, heads, printed))


def _unedited(own: Sequence[Line], side: str, metric: Metric) -> Number | None:
    """The unedited model's number; every line that has it was measured on the same facts."""
    return next((found[metric.key] for line in own if metric.key in (found := getattr(line, side))), None)


def _down(kind: str, title: str, own: Sequence[Line], heads: Sequence[str]) -> Table:
    """The unedited model and runs down, metrics across; under each run the printed numbers, where there are
    some."""
    metrics = [m for m in EVERY if any(m.key in line.numbers or m.key in line.before for line in own)]
    counted = len({(line.edits, line.batch_size) for line in own}) > 1 or kind == "batches"
    rows: list[tuple[str, ...]] = []
    printed = [printed_beside(kind, line) for line in own]
    begun: set[tuple[str, str, int]] = set()
    for line, head, found in zip(own, heads, printed, strict=True):
        place = (line.model, line.data, line.edits)
        same = [other for other in own if (other.model, other.data, other.edits) == place]
        for side, name in _SIDES.items() if place not in begun else ():
            texts = [text(_unedited(same, side, m), m) for m in metrics]
            edits = [_batch(replace(line, batch_size=0))] if counted else []
            rows += [(line.model, line.data, name, *edits, *texts)] if any(texts) else []
        begun.add(place)
        names = (line.model, line.data, head, *([_batch(line)] if counted else []))
        rows.append((*names, *(text(line.numbers.get(m.key), m, line) for m in metrics)))
        texts = [p.text if (p := _match(found, m)) else "" for m in metrics]
        if any(texts):
            number = next(iter(found.values())).table
            blank = ("", "", f"  published (table {number})", *([""] if counted else []))
            rows.append((*blank, *texts))
    columns = ("Model", "Data", "Method", *(["Edits"] if counted else []), *(m.name for m in metrics))
    return Table(kind, title, columns, tuple(rows), 4 if counted else 3, _notes(own, heads, printed))


def printed_beside(kind: str, line: Line) -> dict[str, Published]:
    """The published numbers of this run in the tables that this one has the shape of."""
    share, method = line.share, line.method
    alpha = "" if share is None else f"{share:g}"
    if kind in ("modules", "methods"):
        own = alpha if share in (0, 1) else JOINT
        method, alpha = AS_PRINTED.get(method, (method, own if METHODS[method].balanced else ""))
    elif kind != "alpha":
        alpha = ""
    return printed_numbers(_PRINTED[kind], line.model, line.data, method, alpha)


def _match(found: dict[str, Published], metric: Metric) -> Published | None:
    """A task's metric has a filter behind its name, which the published tables do not tell."""
    return found.get(metric.key) or found.get(metric.key.partition(",")[0])


def _notes(
    own: Sequence[Line], heads: Sequence[str], printed: Sequence[dict[str, Published]]
) -> tuple[str, ...]:
    notes = []
    for line, head in zip(own, heads, strict=True):
        if line.errors:
            many = f"{len(line.errors)} of {line.replicates} runs failed"
            notes.append(
                f"{line.model}, {line.data}, {head}: {many} ({'; '.join(dict.fromkeys(line.errors))})"
            )
    shares = [line for line in own if _both_sites(line) and line.traced_alpha is not None]
    traced = {line.model: line.traced_alpha for line in shares}
    notes += [f"{model}: the traced alpha is {share:.2f}." for model, share in traced.items()]
    every = [p for found in printed for p in found.values()]
    if every:
        notes.append(f"Published: {SOURCE}.")
    if any(not p.model for p in every):
        notes.append("The published table does not name its model.")
    return tuple(notes)


def _both_sites(line: Line) -> bool:
    """Whether the run edits several layers, with a share for attention."""
    method = METHODS[line.method]
    return method.balanced and not method.one_layer


def _names(own: Sequence[Line]) -> list[str]:
    """Each run's label, with its alpha where the label alone does not tell runs apart."""
    shares: dict[tuple[Any, ...], set[str]] = {}
    for line in own:
        shares.setdefault((line.model, line.data, line.label), set()).add(line.alpha)
    several = {key for key, found in shares.items() if len(found) > 1}
    return [
        f"{line.label} (alpha {_alpha_name(line)})"
        if (line.model, line.data, line.label) in several
        else line.label
        for line in own
    ]


def _alpha_name(line: Line) -> str:
    """`0.30`, or `auto: 0.23` where it was measured."""
    share = line.share
    if share is not None:
        return f"{share:.2f}"
    return line.alpha if line.found_alpha is None else f"{line.alpha}: {line.found_alpha:.2f}"


def _place(line: Line) -> float:
    share = line.share
    return share if share is not None else line.found_alpha or 0.0


def _batch(line: Line) -> str:
    edits = f"{line.edits} edit{'s' if line.edits > 1 else ''}"
    return f"{edits} in batches of {line.batch_size}" if line.batch_size else f"{edits} at once"


def _by(
    found: Sequence[Line], key: Callable[[Line], tuple[Any, ...]]
) -> list[tuple[tuple[Any, ...], list[Line]]]:
    groups: dict[tuple[Any, ...], list[Line]] = {}
    for line in found:
        groups.setdefault(key(line), []).append(line)
    return list(groups.items())
