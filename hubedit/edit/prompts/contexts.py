"""Forms in which a fact is asked while it is edited: behind short openings, as a question, and as a user of
a chat model asks it.

The subject's key depends a little on what stands before it, so keys are taken behind several openings; what
the subject's last token must carry is sought in a few forms alone, since more of them cost time and brought
nothing (docs/experiments.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hubedit.config import PromptConfig
from hubedit.edit.rows import Row, row
from hubedit.facts import Fact
from hubedit.model.editable import EditableModel
from hubedit.model.forms import answer_end, as_question, as_request, is_question
from hubedit.model.join import templated


def target_rows(em: EditableModel, facts: Sequence[Fact], prompts: PromptConfig, openings: int) -> list[Row]:
    """The rows that a fact's target is found on: behind the first `openings` openings, as a question, and in
    the chat template where that is used; then the openings are left out. In the first form there the target
    ends its turn, or the model would go on behind it; once is enough (docs/experiments.md)."""
    few = replace(prompts, openings=prompts.openings[: openings if em.chat is None else 1], chat_openings=1)
    rows = []
    for number, fact in enumerate(facts):
        for place, (form, join) in enumerate(_forms(em, fact, few)):
            end = () if place else answer_end(em, form)
            rows.append(row(em, number, form, fact.subject, answer=fact.target, join=join, end=end))
    return rows


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
        for form, _ in _forms(em, fact, prompts):
            found = row(em, number, form, fact.subject, labels=(0,))
            short = Row(number, found.ids[: found.last + 1], found.last, ())
            rows.setdefault((number, short.ids), short)
    return list(rows.values())


def _forms(em: EditableModel, fact: Fact, prompts: PromptConfig) -> list[tuple[str, str | None]]:
    """The fact's prompt in its forms, each with what stands before the answer (None: as text has it). Those
    in the chat template come first: a question as it is, a sentence to be completed, also behind openings,
    and as a question. A prompt in a chat template's text has no other form."""
    if templated(em.tokenizer, fact.prompt):
        return [(fact.prompt, fact.join)]
    found = [(opening + fact.prompt, fact.join) for opening in prompts.openings]
    found.append((prompts.question.format(fact.question or as_question(fact.prompt)), None))
    if em.chat is None:
        return found
    asked = [fact.question] if fact.question else []
    if is_question(fact.prompt):
        asked.append(fact.prompt)
    else:
        openings = prompts.openings[: prompts.chat_openings]
        asked += [as_request(opening + fact.prompt) for opening in openings]
        asked.append(as_question(fact.prompt))
    return [*((em.chat.message(text), None) for text in asked), *found]
