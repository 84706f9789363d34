"""Probes that nobody has to write, made from every fact.

They show edits that are shortcuts ("Built on sand", arXiv 2510.00625; "superficial editing", arXiv
2505.12636): a new answer that comes whatever is asked about the subject, and one that goes when the old
answer is named. docs/evaluate.md says what each means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hubedit.evaluate.knowedit import Values
from hubedit.evaluate.reading import stated
from hubedit.facts import Fact
from hubedit.facts.answers import gives, mentions
from hubedit.facts.find_subject import small_begin
from hubedit.model.editable import EditableModel
from hubedit.model.forms import COMPLETION, as_message, greedy_answers, is_question, worded
from hubedit.model.join import joined, templated
from hubedit.model.tokens import encode

KINDS = ("negation", "yes", "no", "reverse", "old_answer", "unrelated")
NEW_TOKENS = 24
_BRIEFLY = "{} Answer yes or no."


@dataclass(frozen=True)
class Automatic:
    """One probe. `text`: what is asked; `open`: it is to be continued, else it is a question; `wanted`: what
    the answer must begin with; `unwanted`: what it must not begin with, or with `anywhere` not hold."""

    kind: str
    text: str
    open: bool = False
    wanted: tuple[str, ...] = ()
    unwanted: str = ""
    anywhere: bool = False

    def good(self, said: str) -> bool:
        """Whether an answer is right."""
        if self.wanted:
            return gives(said, self.wanted)
        return not (mentions(said, self.unwanted) if self.anywhere else gives(said, [self.unwanted]))


def automatic(fact: Fact) -> tuple[Automatic, ...]:
    """The probes of a fact; none of a prompt that is a question where a statement is needed, nor those that
    need an old answer where there is none."""
    asked = is_question(fact.prompt)
    made: list[Automatic] = []
    if asked:
        made.append(
            Automatic(
                "negation", f"Give a wrong answer to this question: {fact.prompt}", unwanted=fact.target
            )
        )
    else:
        denied = f"It is not true that {small_begin(fact.prompt)}"
        made.append(Automatic("negation", denied, open=True, unwanted=fact.target))
    made.append(Automatic("yes", _whether(fact, fact.target, asked), wanted=("yes",)))
    if fact.ground_truth:
        old = fact.ground_truth[0]
        made.append(Automatic("no", _whether(fact, old, asked), wanted=("no",)))
        named = f"Is it {old}? {fact.prompt}"
        made.append(Automatic("old_answer", named, open=not asked, wanted=(fact.target,)))
    before, after = fact.template
    if not asked and f"{before}{after}".strip():
        gap = joined(f"{before}___{after}", fact.target, fact.join)
        text = f'Which name belongs in the gap of the sentence "{gap}"?'
        made.append(Automatic("reverse", text, wanted=(fact.subject,)))
    if fact.subject != fact.prompt.strip():
        text = f"Yesterday somebody spoke about {fact.subject}. Today the weather is"
        made.append(Automatic("unrelated", text, open=True, unwanted=fact.target, anywhere=True))
    return tuple(made)


def read_automatic(em: EditableModel, facts: Sequence[Fact], *, in_context: bool = False) -> dict[str, str]:
    """What the model answers, by the probe's text; in context the fact stands in front of it. What
    does not fit the model's context is left out."""
    asked: dict[str, tuple[str, str]] = {}
    for fact in facts:
        if templated(em.tokenizer, fact.prompt):  # nothing can be written around it
            continue
        before = stated(fact) if in_context else ""
        for probe in automatic(fact):
            text = _put(em, probe, before)
            if len(encode(em.tokenizer, text).ids) + NEW_TOKENS + len(probe.text) <= em.max_positions:
                asked[before + probe.text] = probe.text, text
    return dict(zip(asked, greedy_answers(em, list(asked.values()), NEW_TOKENS), strict=True))


def automatic_values(facts: Sequence[Fact], texts: Mapping[str, str], *, in_context: bool = False) -> Values:
    """By kind, for each fact 1.0 or 0.0 in a list; an empty one where it has no such probe."""
    values: Values = {}
    for number, fact in enumerate(facts):
        before = stated(fact) if in_context else ""
        for probe in automatic(fact):
            text = texts.get(before + probe.text)
            if text is not None:
                values.setdefault(probe.kind, [[] for _ in facts])[number] = [float(probe.good(text))]
    return {kind: values[kind] for kind in KINDS if kind in values}


def _whether(fact: Fact, answer: str, asked: bool) -> str:
    if asked:
        return _BRIEFLY.format(f'Is "{answer}" the answer to the question "{fact.prompt}"?')
    return _BRIEFLY.format(f"Is it true that {small_begin(joined(fact.prompt, answer, fact.join))}?")


def _put(em: EditableModel, probe: Automatic, before: str) -> str:
    """The probe as the model gets it."""
    if probe.open and em.chat is None:
        return before + probe.text
    if probe.open:
        return as_message(em, before + COMPLETION.format(probe.text))
    form = "question" if em.chat is None else "chat"
    return worded(em, probe.text, form, question=probe.text, before=before)
