"""Facts that a model knows and nobody edited: whether they still get their true answer is the best witness of
harm."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from hubedit.facts import Fact
from hubedit.facts.answers import gives
from hubedit.model.editable import EditableModel
from hubedit.model.forms import greedy_answers, put
from hubedit.model.tokens import continuation

MOST = 100
"""So many known facts are enough."""
LEAST = 50
"""With fewer, the report says that the share is of few."""
ASKED = 2000
"""At most this many facts are asked whether they are known."""
PART = 200
"""Facts that are asked at once."""
_MOST_TOKENS = 12


def truth(fact: Fact) -> tuple[str, ...]:
    """The true answers of a fact that is not edited; a record of one answer alone has it as its target."""
    return fact.ground_truth or (fact.target,)


def candidates(facts: Iterable[Fact], edited: Iterable[Fact]) -> list[Fact]:
    """The facts of subjects that are not edited, without their probes: one a prompt, at most `ASKED`."""
    subjects = {fact.subject for fact in edited}
    single: dict[str, Fact] = {}
    for fact in facts:
        if fact.subject not in subjects and len(single) < ASKED:
            single.setdefault(fact.prompt, replace(fact, rephrase=(), locality=(), portability=()))
    return list(single.values())


def holds(em: EditableModel, facts: Sequence[Fact]) -> list[bool]:
    """Whether the model gives each fact's true answer."""
    asked = [put(em, fact) for fact in facts]
    lengths = [
        len(continuation(em.tokenizer, prompt, truth(fact)[0], join))
        for fact, (prompt, join) in zip(facts, asked, strict=True)
    ]
    pairs = [(fact.prompt, prompt) for fact, (prompt, _) in zip(facts, asked, strict=True)]
    texts = greedy_answers(em, pairs, min(max(lengths, default=0), _MOST_TOKENS) + 2)
    return [gives(text, truth(fact)) for fact, text in zip(facts, texts, strict=True)]
