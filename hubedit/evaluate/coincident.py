"""Probes that happen to be worded as a prompt that is edited or preserved: what they give shows nothing, so
they are left out of every figure and counted apart.

No probe of a facts file ever reaches an edit; but a rephrasing of one fact may be the prompt of another, or
the form in which the prompt itself is edited.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hubedit.config import PromptConfig
from hubedit.facts import Fact, Probe
from hubedit.model.forms import as_question, as_request
from hubedit.names import sentences


def edited_texts(facts: Sequence[Fact], prompts: PromptConfig | None = None) -> frozenset[str]:
    """Every prompt that an edit of the facts sees, in all its forms (`hubedit.edit.prompts.contexts`), and
    the sentences about names that it preserves (`hubedit.names`)."""
    prompts = prompts or PromptConfig()
    found = set(sentences())
    for fact in facts:
        question = fact.question or as_question(fact.prompt)
        found |= {question, as_request(fact.prompt), prompts.question.format(question)}
        found |= {opening + fact.prompt for opening in prompts.openings}
        if fact.subject:
            found.add(f"{fact.subject} is a")  # preserved
    return frozenset(text.strip() for text in found)


def apart(facts: Sequence[Fact]) -> tuple[list[Fact], list[str]]:
    """The facts without such probes, and the probes' prompts."""
    texts = edited_texts(facts)
    found: list[str] = []

    def seen(prompt: str) -> bool:
        if prompt.strip() not in texts:
            return False
        found.append(prompt)
        return True

    def kept(probes: tuple[Probe, ...]) -> tuple[Probe, ...]:
        return tuple(probe for probe in probes if not seen(probe.prompt))

    rest = []
    for fact in facts:
        rephrase = tuple(prompt for prompt in fact.rephrase if not seen(prompt))
        own = replace(
            fact, rephrase=rephrase, locality=kept(fact.locality), portability=kept(fact.portability)
        )
        rest.append(fact if own == fact else own)
    return rest, found
