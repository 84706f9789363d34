"""Forms in which a fact is asked while it is edited: behind short openings, as a question, and as a user of
a chat model asks it.

The subject's key depends a little on what stands before it, so keys are taken behind several openings; what
the subject's last token must carry is sought in a few forms alone, since more of them cost time and brought
nothing (docs/experiments.md).
"""

from __future__ import annotations

from collections.abc import Sequence

from hubedit.edit.rows import Row, row
from hubedit.facts import Fact
from hubedit.model.editable import EditableModel
from hubedit.model.forms import as_question, as_request, is_question, put
from hubedit.model.join import templated

OPENINGS = ("", "As for ", "We all know that ", "In the case of ", "Once more: ")
"""What stands before the prompt for the keys, the bare prompt first."""

CHAT_OPENINGS = 2
"""So many of them inside the chat template."""


def target_rows(em: EditableModel, facts: Sequence[Fact], openings: int) -> list[Row]:
    """The rows that a fact's target is found on: behind the first `openings` openings, as a question, and in
    the chat template where that is used; then the openings are left out."""
    return [
        row(em, number, form, fact.subject, answer=fact.target, join=join)
        for number, fact in enumerate(facts)
        for form, join in _forms(em, fact, openings if em.chat is None else 1, 1)
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
        for form, _ in _forms(em, fact, len(OPENINGS), CHAT_OPENINGS):
            found = row(em, number, form, fact.subject, labels=(0,))
            short = Row(number, found.ids[: found.last + 1], found.last, ())
            rows.setdefault((number, short.ids), short)
    return list(rows.values())


def _forms(em: EditableModel, fact: Fact, openings: int, in_chat: int) -> list[tuple[str, str | None]]:
    """The fact's prompt in its forms, each with what stands before the answer (None: as text has it). Those
    in the chat template come first: a question as it is, a sentence to be completed, behind the first
    `in_chat` openings, and as a question. A prompt in a chat template's text has no other form."""
    if templated(em.tokenizer, fact.prompt):
        return [(fact.prompt, fact.join)]
    found = [(opening + fact.prompt, fact.join) for opening in OPENINGS[:openings]]
    found.append(put(em, fact, "question"))
    if em.chat is None:
        return found
    asked = [fact.question] if fact.question else []
    if is_question(fact.prompt):
        asked.append(fact.prompt)
    else:
        asked += [as_request(opening + fact.prompt) for opening in OPENINGS[:in_chat]]
        asked.append(as_question(fact.prompt))
    return [*((em.chat.message(text), None) for text in asked), *found]
