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
from hubedit.model.editable import EditableModel


def places(facts: Sequence[Fact], rows: Sequence[Row]) -> tuple[int, ...]:
    """Each fact's place, 0 and up in the order of the facts. `rows`: their edit rows.

    Facts share one where they name the same subject, or where the same tokens lead up to its last one.
    """
    bare = bare_rows(rows)
    found: list[int] = []
    first: dict[object, int] = {}
    for n, fact in enumerate(facts):
        names: tuple[object, ...] = (fact.subject, bare[n].ids[: bare[n].last + 1])
        known = sorted({first[name] for name in names if name in first})
        own = known[0] if known else n
        if len(known) > 1:  # the fact joins two places that were apart
            found = [own if place in known else place for place in found]
            first = {name: own if place in known else place for name, place in first.items()}
        found.append(own)
        first |= dict.fromkeys(names, own)
    number = {place: i for i, place in enumerate(dict.fromkeys(found))}
    return tuple(number[place] for place in found)


def beside(em: EditableModel, facts: Sequence[Fact], kept: Sequence[Fact]) -> tuple[int, ...]:
    """For each fact that was edited before, the first of `facts` at its place, or `OTHER`."""
    together = [*facts, *kept]
    where = places(together, edit_rows(em, together, ()))
    first = {place: n for n, place in reversed(list(enumerate(where[: len(facts)])))}
    return tuple(first.get(place, OTHER) for place in where[len(facts) :])


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
