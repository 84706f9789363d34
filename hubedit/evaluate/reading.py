"""What a model says to the prompts of facts: generated text, and teacher-forced answers in the same pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hubedit.evaluate.forced import Forced, Pair, forced
from hubedit.facts import Fact, Probe
from hubedit.facts.answers import mentions, normalise
from hubedit.model.editable import EditableModel
from hubedit.model.generate import greedy
from hubedit.model.join import joined, joins
from hubedit.model.tokens import continuation, encode

MOST_ANSWER_TOKENS = 44
"""Longer answers of probes than this are not waited for."""


@dataclass(frozen=True)
class Reading:
    """`texts`: what follows each prompt greedily; `scored`: each prompt with an answer, teacher-forced.

    `in_context`: each prompt stood behind its fact written out; so did the keys.
    """

    texts: Mapping[str, str]
    scored: Mapping[Pair, Forced] = field(default_factory=dict)
    in_context: bool = False

    def text(self, fact: Fact, prompt: str) -> str | None:
        """What was generated for a prompt of the fact; None where it was not asked."""
        return self.texts.get(asked(fact, prompt, self.in_context))

    def score(self, fact: Fact, prompt: str, answer: str) -> Forced | None:
        """The answer after a prompt of the fact; None where that was not scored."""
        return self.scored.get((asked(fact, prompt, self.in_context), answer))


def asked(fact: Fact, prompt: str, in_context: bool) -> str:
    """A prompt of the fact as the model gets it: "{fact's prompt} {target}. {prompt}" in context."""
    return f"{joined(fact.prompt, fact.target, fact.join)}. {prompt}" if in_context else prompt


def read(
    em: EditableModel, facts: Sequence[Fact], *, probes: bool = True, in_context: bool = False
) -> Reading:
    """Generates for every prompt of the facts (with `probes`: rephrasings, locality and portability too) and
    scores the answers that metrics look at, in one pass.

    Raises TokenError for a target or prompt that does not
    fit the model; what does not fit in context alone is left out.
    """
    prompts: dict[str, None] = {}
    pairs: dict[Pair, None] = {}
    between: dict[str, str] = {}
    for fact in facts:
        own = (*fact.rephrase, *(p.prompt for p in (*fact.locality, *fact.portability))) if probes else ()
        prompts |= dict.fromkeys(asked(fact, prompt, in_context) for prompt in (fact.prompt, *own))
        scored = answers_of(fact) if probes else [(fact.prompt, fact.target)]
        pairs |= dict.fromkeys((asked(fact, prompt, in_context), answer) for prompt, answer in scored)
        between |= {asked(fact, prompt, in_context): join for prompt, join in joins([fact]).items()}
    new = new_tokens(em, facts, probes=probes)
    kept = list(prompts)
    if in_context:  # a fact that fits is not given up because it does not fit twice
        kept = [p for p in kept if len(encode(em.tokenizer, p).ids) + new <= em.max_positions]
    texts = greedy(em, kept, new)
    return Reading(dict(zip(kept, texts, strict=True)), forced(em, pairs, joins=between), in_context)


def answers_of(fact: Fact) -> list[Pair]:
    """Every prompt of the fact with each answer whose probability counts."""
    pairs = [(prompt, fact.target) for prompt in (fact.prompt, *fact.rephrase)]
    if fact.ground_truth:
        pairs += [(prompt, fact.ground_truth[0]) for prompt in (fact.prompt, *fact.rephrase)]
    pairs += [(p.prompt, p.answers[0]) for p in (*fact.locality, *fact.portability) if p.answers]
    return pairs + [(probe.prompt, fact.target) for probe in neighbours(fact)]


def neighbours(fact: Fact) -> list[Probe]:
    """Prompts about other subjects with an answer of their own, which is not the new one."""
    return [
        probe
        for probe in fact.locality
        if probe.answers
        and not mentions(probe.prompt, fact.subject)
        and normalise(probe.answers[0]) != normalise(fact.target)
    ]


def new_tokens(em: EditableModel, facts: Sequence[Fact], *, probes: bool = True) -> int:
    """How many tokens are generated after each prompt: the longest answer and a few more."""
    target = answer = 1

    def length(prompt: str, text: str, join: str | None = None) -> int:
        return len(continuation(em.tokenizer, prompt, text, join)) if text.strip() else 0

    for fact in facts:
        target = max(target, length(fact.prompt, fact.target, fact.join))
        for probe in (*fact.locality, *fact.portability) if probes else ():
            answer = max(answer, *(length(probe.prompt, text) for text in probe.answers), 0)
    # a target must fit whatever its length; one endless alias of a probe must not slow everything down
    return max(target, min(answer, MOST_ANSWER_TOKENS)) + 4
