"""Facts about one subject share a target: one change at the subject's last token serves all of them.

What the MLP reads there, its key, is nearly the same whatever is asked of the subject, and exactly the same
where nothing stands before it. A closed form that is given two values for one key takes their mean, and
neither fact succeeds. So one delta is optimised for all the facts of a subject; each fact keeps its keys,
and its row of the factors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hubedit.edit.rows import Row, edit_rows
from hubedit.facts import Fact
from hubedit.facts.together import Names, together
from hubedit.model.editable import EditableModel


def names_of(em: EditableModel, facts: Sequence[Fact]) -> list[Names]:
    """The names of each fact's subject: its text, and the tokens that lead up to its last one. They depend on
    the tokenizer and the chat template alone."""
    rows = edit_rows(em, facts, ())
    return [(f.subject, r.ids[: r.last + 1]) for f, r in zip(facts, rows, strict=True)]


def subjects(em: EditableModel, facts: Sequence[Fact]) -> tuple[int, ...]:
    """Each fact's subject, numbered 0 and up in the order of the facts: facts share one where they name the
    same subject, or where the same tokens lead up to its last one."""
    return together(names_of(em, facts))


def sharing(new: Sequence[Names], earlier: Sequence[Names]) -> dict[int, int]:
    """Which of the facts edited before share a subject with a new one, by their names: index in `earlier` ->
    index in `new`."""
    found = together([*new, *earlier])
    first: dict[int, int] = {}
    for number in range(len(new)):
        first.setdefault(found[number], number)
    numbered = enumerate(found[len(new) :])
    return {number: first[subject] for number, subject in numbered if subject in first}


def by_subject(rows: Sequence[Row], subject: Sequence[int]) -> list[Row]:
    """The rows with each fact's subject in the fact's stead; what two facts of a subject preserve counts
    once."""
    moved = [replace(r, fact=subject[r.fact]) for r in rows]
    return list(dict.fromkeys(moved))
