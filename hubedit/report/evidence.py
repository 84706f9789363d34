"""What was edited and what broke, quoted: rows for the card and the page.

Nothing is quoted without the facts; the counts stay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from hubedit.report.markup import clip, number
from hubedit.report.measures import Json, alone, outcomes

FOLD = 20
WORST = 10
_TEXT = 240
# bytes of markup around one fact of the page
_ROW = 330


_LOSS = (
    "Loss, in nats a token: by how much less likely the right answer has become, or how unlikely a new "
    "answer still is."
)
_FLIPPED = (
    (
        "flipped_same_subject",
        "Other facts about an edited subject that changed",
        "No other fact about an edited subject changed.",
    ),
    ("flipped_neighbours", "Neighbours that flipped", "No neighbour changed its answer."),
)


@dataclass(frozen=True)
class Edits:
    """`rows`: prompt, target and, where `measured`, before, after and verdict ("yes", "no", "not measured").
    `left`: rows not shown; `unmeasured`: facts, shown or not, that the report says nothing of."""

    rows: tuple[Json, ...]
    left: int
    measured: bool
    total: int
    unmeasured: int = 0

    @property
    def folded(self) -> bool:
        """Whether the table is long enough to be folded."""
        return len(self.rows) > FOLD


@dataclass(frozen=True)
class Damage:
    """One kind of damage. `count`: how often; `rows`: the cases that are quoted, cells of `columns`; `note`:
    what must be known to read them."""

    title: str
    none: str
    count: int
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    counted: bool = True
    """Whether the count stands beside the title."""

    @property
    def left(self) -> int:
        """How many cases are not quoted."""
        return self.count - len(self.rows)


def edits(report: Json, facts: Sequence[Json], *, with_facts: bool, most: int, size: int = 0) -> Edits:
    """The table of edited facts: the `facts` with what the report says of each; without them the report's.

    A report may be about other facts, or some of these: then they are no rows, or others are marked.
    At most `most` rows, and with `size` at most about `size` bytes of HTML; then failures come first.
    """
    read = [o for o in outcomes(report) if "prompt" in o and "target" in o]
    known = {(o["prompt"], o["target"]): o for o in read}
    own = [f for f in facts if isinstance(f.get("prompt"), str) and isinstance(f.get("target"), str)]
    found = [known.get((f["prompt"], f["target"]), f) for f in own] or read
    measured = any("after" in o and "before" in o for o in found)
    if not with_facts:
        return Edits((), 0, False, len(found))
    rows = [_row(o, measured) for o in found]
    lengths = [_ROW + sum(len(escape(str(value)).encode()) for value in row.values()) for row in rows]
    if len(rows) > most or (size and sum(lengths) > size):
        order = sorted(range(len(rows)), key=lambda n: rows[n].get("success") is not False)
        kept, used = [], 0
        for n in order[:most]:
            used += lengths[n]
            if size and used > size:
                break
            kept.append(rows[n])
        rows = kept
    unmeasured = sum(1 for o in found if "after" not in o) if measured else 0
    return Edits(tuple(rows), len(found) - len(rows), measured, len(found), unmeasured)


def failed(report: Json) -> int:
    """How many facts did not change as asked."""
    return 0 if alone(report) else sum(1 for o in outcomes(report) if o.get("success") is False)


def damage(report: Json, *, with_facts: bool) -> tuple[Damage, ...]:
    """What the edit broke, as far as it was looked for; empty when it was not."""
    made = []
    found = outcomes(report)
    if any("success" in o for o in found) and not alone(report):
        bad = [o for o in found if o.get("success") is False]
        columns = ("Prompt", "Target", "Says")
        rows = _rows(bad, ("prompt", "target", "after"), with_facts)
        made.append(Damage("Facts that did not take", "Every fact took.", len(bad), columns, rows))
    broken: Json = report.get("damage") or {}
    columns = ("Prompt", "Before", "After")
    keys = ("prompt", "before", "after")
    if (cases := broken.get("broken_by_batch")) is not None:
        title, none = "Facts broken by other facts of the batch", "No fact was broken by another."
        stored: tuple[str, ...] = ("Prompt", "Says on its own", "Says in the batch", "Broken by")
        rows = _rows(cases, (*keys, "by"), with_facts)
        if not any(row[3] for row in rows):
            stored, rows = stored[:3], tuple(row[:3] for row in rows)
        made.append(Damage(title, none, len(cases), stored, rows))
    if made and not broken.keys() & {"flipped_same_subject", "flipped_neighbours", "lost_bystanders"}:
        none = "Not measured: the facts have no locality prompts, and no bystanders were asked."
        made.append(Damage("Other facts", none, 0, (), (), counted=False))
    for key, title, none in _FLIPPED:
        if (cases := broken.get(key)) is not None:
            made.append(Damage(title, none, len(cases), columns, _rows(cases, keys, with_facts)))
    if (prompts := broken.get("lost_bystanders")) is not None:
        title, none = "Known facts of other subjects that lost their answer", "Every one kept its answer."
        rows = _rows([{"prompt": prompt} for prompt in prompts], ("prompt",), with_facts)
        made.append(Damage(title, none, len(prompts), ("Prompt",), rows))
    if with_facts and (cases := broken.get("worst")):
        rows = tuple(
            (
                clip(case.get("kind", ""), 40).replace("_", " "),
                *(clip(case.get(key, ""), _TEXT) for key in keys),
                "" if (loss := number(case.get("loss"))) is None else f"{loss:.3g}",
            )
            for case in cases[:WORST]
        )
        worst = ("Kind", *columns, "Loss")
        made.append(Damage("The worst cases", "", len(rows), worst, rows, _LOSS, counted=False))
    return tuple(made)


def relations(report: Json) -> list[tuple[str, float, int]]:
    """(relation, success 0..1, n), the most frequent first. From the report; else from its facts.

    A relation is the prompt around the subject. Empty where no relation has two facts, or all are one.
    """
    stored = report.get("relations")
    if isinstance(stored, Mapping):
        found = [(str(k), number(v.get("success")), number(v.get("n"))) for k, v in stored.items()]
        rows = [(clip(name, 60), share, int(n)) for name, share, n in found if share is not None and n]
        return _by_size(rows)
    if alone(report):
        return []
    marks: dict[str, list[bool]] = {}
    for o in outcomes(report):
        if (
            isinstance(o.get("success"), bool)
            and o.get("subject")
            and o["subject"] in str(o.get("prompt", ""))
        ):
            name = clip("{}".join(str(o["prompt"]).rsplit(str(o["subject"]), 1)), 60)
            marks.setdefault(name, []).append(o["success"])
    return _by_size([(name, sum(m) / len(m), len(m)) for name, m in marks.items()])


def _by_size(rows: list[tuple[str, float, int]]) -> list[tuple[str, float, int]]:
    if len(rows) < 2 or max(n for _, _, n in rows) < 2:
        return []
    return sorted(rows, key=lambda row: (-row[2], row[0]))


def _row(o: Json, measured: bool) -> dict[str, Any]:
    keys = ("prompt", "before", "after", "target") if measured else ("prompt", "target")
    row: dict[str, Any] = {key: _said(o, key) for key in keys}
    known = o.get("success") if "after" in o else None
    verdict = (
        "not measured" if "after" not in o else "yes" if known is True else "no" if known is False else ""
    )
    return {**row, "success": known, "verdict": verdict}


def _said(case: Json, key: str) -> str:
    """A text of the table. What a model answers with nothing is said, what is not known stays empty."""
    text = clip(case.get(key, ""), _TEXT)
    return "(nothing)" if key in ("before", "after") and key in case and not text.strip() else text


def _rows(cases: Sequence[Json], keys: Sequence[str], with_facts: bool) -> tuple[tuple[str, ...], ...]:
    if not with_facts:
        return ()
    quoted = [case for case in cases if "prompt" in case]
    return tuple(tuple(_said(case, key) for key in keys) for case in quoted[:WORST])
