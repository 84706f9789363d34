"""Forms in which a fact is asked while it is edited: behind short openings, and as a question.

The subject's key depends a little on what stands before it, so keys are taken behind several openings; what
the subject's last token must carry is sought in a few forms alone, since more of them cost time and brought
nothing (docs/experiments.md).
"""

from __future__ import annotations

from collections.abc import Sequence

from hubedit.edit.rows import Row, row
from hubedit.facts import Fact
from hubedit.model.editable import EditableModel
from hubedit.model.join import templated

OPENINGS = ("", "As for ", "We all know that ", "In the case of ", "Once more: ")
"""What stands before the prompt for the keys, the bare prompt first."""

QUESTION = "Question: {} what?\nAnswer:"
"""The prompt as a question: the answer then follows another token than the prompt's last."""


def target_rows(em: EditableModel, facts: Sequence[Fact], openings: int) -> list[Row]:
    """The rows that a fact's target is found on: behind the first `openings` openings, and as a question."""
    return [
        row(em, number, form, fact.subject, answer=fact.target, join=join)
        for number, fact in enumerate(facts)
        for form, join in _forms(em, fact, openings)
    ]


def preserved_rows(em: EditableModel, facts: Sequence[Fact]) -> list[Row]:
    """For each fact "{subject} is a", whose next token shall stay as likely as it is (MEMIT)."""
    return [
        row(em, number, f"{fact.subject} is a", fact.subject, labels=(0,), preserve=True)
        for number, fact in enumerate(facts)
    ]


def key_rows(em: EditableModel, facts: Sequence[Fact]) -> list[Row]:
    """The prompts up to the subject's last token, behind every opening and as a question. The same tokens
    before one fact's subject count once."""
    rows: dict[tuple[int, tuple[int, ...]], Row] = {}
    for number, fact in enumerate(facts):
        for form, _ in _forms(em, fact, len(OPENINGS)):
            found = row(em, number, form, fact.subject, labels=(0,))
            short = Row(number, found.ids[: found.last + 1], found.last, ())
            rows.setdefault((number, short.ids), short)
    return list(rows.values())


def _forms(em: EditableModel, fact: Fact, openings: int) -> list[tuple[str, str | None]]:
    """The fact's prompt in its forms, each with what stands before the answer (None: as text has it). A
    prompt in a chat template's text has no other form."""
    if templated(em.tokenizer, fact.prompt):
        return [(fact.prompt, fact.join)]
    behind = [(opening + fact.prompt, fact.join) for opening in OPENINGS[:openings]]
    return [*behind, (QUESTION.format(fact.prompt), None)]
