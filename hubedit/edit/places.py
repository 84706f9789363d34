"""Facts about one subject share a place: one change at the subject's last token serves all of them.

What the MLP reads there, its key, is nearly the same whatever is asked of the subject, and exactly the same
where nothing stands before it. A closed form that is given two values for one key takes
their mean, and neither fact succeeds. So one delta is optimised for all the facts of a subject; each fact
keeps its key, and its row of the factors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hubedit.edit.rows import OTHER, Row, bare_rows, edit_rows
from hubedit.facts import Fact
from hubedit.facts.together import together
from hubedit.model.editable import EditableModel


def places(facts: Sequence[Fact], rows: Sequence[Row]) -> tuple[int, ...]:
    """Each fact's place, 0 and up in the order of the facts. `rows`: their edit rows.

    Facts share one where they name the same subject, or where the same tokens lead up to its last one.
    """
    return together(_names(facts, rows))


def beside(em: EditableModel, facts: Sequence[Fact], kept: Sequence[Fact]) -> tuple[int, ...]:
    """For each fact that was edited before, one of `facts` at its place, or `OTHER`: one with the same tokens
    up to the subject's end before one with the same subject, before any."""
    both = [*facts, *kept]
    names = _names(both, edit_rows(em, both, ()))
    where, count = together(names), len(facts)
    members: dict[int, list[int]] = {}
    for n in range(count):
        members.setdefault(where[n], []).append(n)

    def nearest(n: int) -> int:
        same = [(names[i][1] == names[n][1], names[i][0] == names[n][0], -i) for i in members[where[n]]]
        return -max(same)[2]

    return tuple(nearest(n) if where[n] in members else OTHER for n in range(count, len(both)))


def _names(facts: Sequence[Fact], rows: Sequence[Row]) -> list[tuple[str, tuple[int, ...]]]:
    bare = bare_rows(rows)
    return [(fact.subject, bare[n].ids[: bare[n].last + 1]) for n, fact in enumerate(facts)]


def at_places(rows: Sequence[Row], where: Sequence[int]) -> list[Row]:
    """The rows with each fact's place in the fact's stead. What two facts of a place keep counts once."""
    moved = [r if r.fact == OTHER else replace(r, fact=where[r.fact]) for r in rows]
    if len(set(where)) == len(where):
        return moved
    kept: list[Row] = []
    seen: set[Row] = set()
    for r in moved:
        if not r.preserve or r not in seen:
            kept.append(r)
        seen.add(r)
    return kept
