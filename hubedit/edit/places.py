"""Facts about one subject share a place: one change at the subject's last token serves all of them.

What a site reads there, its key, is the same whatever is asked of the subject, or nearly so. A closed form
that is given two values for one key takes their mean, and neither fact succeeds. So one delta is optimised
for all the facts of a subject, and the solve sees its key once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hubedit.edit.rows import OTHER, Row, bare_rows
from hubedit.facts import Fact


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
        # a fact can join two places that were apart
        found = [own if place in known else place for place in found] + [own]
        first = {name: own if place in known else place for name, place in first.items()}
        first |= dict.fromkeys(names, own)
    number = {place: i for i, place in enumerate(dict.fromkeys(found))}
    return tuple(number[place] for place in found)


def at_places(rows: Sequence[Row], where: Sequence[int]) -> list[Row]:
    """The rows with each fact's place in the fact's stead."""
    return [r if r.fact == OTHER else replace(r, fact=where[r.fact]) for r in rows]
