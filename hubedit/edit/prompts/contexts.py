"""Forms in which a fact is asked while it is edited: behind short openings, and as a question.

The subject's key depends a little on what stands before it, so keys are taken behind several openings; what
the subject's last token must carry is sought in a few forms alone, since more of them cost time and brought
nothing (docs/experiments.md).
"""

from __future__ import annotations

from collections.abc import Sequence

from hubedit.config import PromptConfig
from hubedit.edit.rows import Row, row
from hubedit.facts import Fact
from hubedit.model.editable import EditableModel
from hubedit.model.join import templated


def target_rows(em: EditableModel, facts: Sequence[Fact], prompts: PromptConfig, openings: int) -> list[Row]:
    """The rows that a fact's target is found on: behind the first `openings` openings, and as a question."""
    return [
        row(em, number, form, fact.subject, answer=fact.target, join=join)
        for number, fact in enumerate(facts)
        for form, join in _forms(em, fact, prompts.openings[:openings], prompts.question)
    ]


def preserved_rows(em: EditableModel, facts: Sequence[Fact]) -> list[Row]:
    """For each fact "{subject} is a", whose next token shall stay as likely as it is (MEMIT)."""
    return [
        row(em, number, f"{fact.subject} is a", fact.subject, labels=(0,), preserve=True)
        for number, fact in enumerate(facts)
    ]


def key_rows(em: EditableModel, facts: Sequence[Fact], prompts: PromptConfig) -> list[Row]:
    """The prompts up to the subject's last token, behind every opening and as a question. The same tokens
    before one fact's subject count once."""
    rows: dict[tuple[int, tuple[int, ...]], Row] = {}
    for number, fact in enumerate(facts):
        for form, _ in _forms(em, fact, prompts.openings, prompts.question):
            found = row(em, number, form, fact.subject, labels=(0,))
            short = Row(number, found.ids[: found.last + 1], found.last, ())
            rows.setdefault((number, short.ids), short)
    return list(rows.values())


def _forms(
    em: EditableModel, fact: Fact, openings: Sequence[str], question: str
) -> list[tuple[str, str | None]]:
    """The fact's prompt in its forms, each with what stands before the answer (None: as text has it). A
    prompt in a chat template's text has no other form."""
    if templated(em.tokenizer, fact.prompt):
        return [(fact.prompt, fact.join)]
    behind = [(opening + fact.prompt, fact.join) for opening in openings]
    return [*behind, (question.format(fact.prompt), None)]
