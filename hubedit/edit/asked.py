"""Every prompt that an edit is computed from and judged by, gathered once.

What must give the target: the facts' own prompts, alone and after other sentences, and other phrasings of
the relation; what follows from the target must come too. What must stay: other beliefs about the subject,
and about other subjects.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any

from hubedit.config import EditConfig
from hubedit.edit.ends import ends, to_its_end
from hubedit.edit.essence import GENERIC, Belief, Survey, batch_templates, choose, survey
from hubedit.edit.hops import Hops, second_hops
from hubedit.edit.implied import implied
from hubedit.edit.others import companions, enough, named, others
from hubedit.edit.places import beside
from hubedit.edit.probes import Probes, preferring
from hubedit.edit.rows import OTHER, Row, edit_rows, row
from hubedit.edit.templates import mine, overheard, tell
from hubedit.facts import Fact
from hubedit.model.editable import EditableModel
from hubedit.model.tokens import decode

CONTEXT_TOKENS = 10

MINED = 64
"""At most so many templates are taken from what the model tells."""
BEHIND = 40
"""And so many, with words before the subject, from the corpus."""
HEARD = 200
"""Subjects of the batch that the model is made to speak about."""
WIDE = 16
"""Subjects that it takes to tell relations apart; a smaller batch is joined by others from the corpus."""
PARTS = 5
"""What the model tells, templates in it, beliefs about the batch's subjects, others, and their answers."""


@dataclass(frozen=True)
class Asked:
    """`rows`: the facts' own prompts, bare and after contexts; `told`: the same in other phrasings, and what
    follows from the target; `preserved` and `generic`: other beliefs about the subjects; `others`: beliefs
    about other subjects; `probes`: what a finished edit is judged by."""

    rows: tuple[Row, ...]
    told: tuple[Row, ...]
    preserved: tuple[Row, ...]
    generic: tuple[Row, ...]
    others: tuple[Row, ...]
    probes: Probes

    def to_json(self) -> dict[str, Any]:
        """Plain data from which `from_json` makes the same."""
        kinds = ("rows", "told", "preserved", "generic", "others")
        rows = {kind: [astuple(r) for r in getattr(self, kind)] for kind in kinds}
        return {**rows, "text": self.probes.text, "weight": self.probes.weight}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Asked:
        """Raises KeyError, TypeError or ValueError when it is not what `to_json` gave."""

        def made(kind: str) -> tuple[Row, ...]:
            return tuple(
                Row(fact, tuple(ids), last, tuple(labels), keep)
                for fact, ids, last, labels, keep in data[kind]
            )

        rows, told, preserved, others = made("rows"), made("told"), made("preserved"), made("others")
        text = tuple(map(tuple, data["text"]))
        probes = Probes((*rows, *told), preserved, others, text, data["weight"])
        return cls(rows, told, preserved, made("generic"), others, probes)

    @property
    def all_rows(self) -> list[Row]:
        """What the targets are optimised on."""
        return [*self.rows, *self.told, *self.preserved, *self.generic]


def prepare(
    em: EditableModel,
    facts: Sequence[Fact],
    config: EditConfig,
    corpus: Sequence[Sequence[int]],
    text: Sequence[Sequence[int]],
    kept: Sequence[Fact] = (),
    tick: Callable[[], None] = lambda: None,
) -> Asked:
    """Surveys the model. `corpus`: token rows to find other subjects in; `text`: rows held out of the
    statistics, for contexts and probes; `kept`: facts of an older patch that is in effect. `tick` after
    each of `PARTS` parts."""
    contexts = leading_sentences(em, text, config.targets.contexts)
    wanted = config.targets
    subjects = sorted({f.subject for f in facts})
    if len(subjects) > HEARD:
        subjects = random.Random(f"heard/{config.seed}").sample(subjects, HEARD)
    # the paper's settings have none of this
    own_text = wanted.told > 0 or wanted.implied > 0
    texts = [decode(em.tokenizer, list(ids)) for ids in corpus]
    joined = companions(em, facts, texts, WIDE) if own_text else []
    told_text = tell(em, [*subjects, *joined], config.seed) if own_text else {}
    tick()
    mined = mine(em, {"": told_text}, MINED)
    if own_text:
        phrasings = [(t.before, t.after) for t in (*batch_templates(facts), *mined)]
        names = [*subjects, *named(texts, phrasings, subjects, enough(len(facts)))]
        mined += mine(em, overheard(texts, names), BEHIND)
    tick()
    at = beside(em, facts, kept)
    beliefs = survey(em, facts, mined, joined, [f for f, n in zip(kept, at, strict=True) if n != OTHER])
    beliefs = replace(beliefs, before=templates_before(beliefs, kept, at))
    tick()
    around = others(em, facts, beliefs, texts)
    tick()
    beliefs = replace(beliefs, others=around.said())
    hops = second_hops(em, facts, beliefs, texts, config.seed) if wanted.implied > 0 else Hops()
    beliefs = replace(beliefs, bridged=frozenset(hops.bridge))
    tick()
    rows = tuple(edit_rows(em, facts, contexts))
    told = told_rows(em, facts, beliefs, wanted.told)
    if wanted.implied > 0:
        told += answer_rows(em, implied(em, facts, beliefs, hops, wanted.implied))
    before = kept_rows(em, kept, at, contexts)
    preserved = belief_rows(em, choose(beliefs, facts, wanted.essence, config.seed))
    preserved += tuple(r for r in before if r.fact != OTHER)
    near = other_rows(em, around.sample(config.seed)) + tuple(r for r in before if r.fact == OTHER)
    probes = preferring(Probes((*rows, *told), preserved, near, tuple(map(tuple, text))), config.prefer)
    return Asked(rows, told, preserved, tuple(generic_rows(em, facts)), near, probes)


def leading_sentences(em: EditableModel, rows: Sequence[Sequence[int]], count: int) -> list[str]:
    """Short contexts that stand before a prompt: the beginnings of corpus rows, each ending in ". "."""
    contexts = []
    for ids in rows[:count]:
        text = " ".join(decode(em.tokenizer, list(ids[:CONTEXT_TOKENS])).split()).rstrip(" .,;:")
        if text:
            contexts.append(text + ". ")
    return contexts


def told_rows(em: EditableModel, facts: Sequence[Fact], beliefs: Survey, most: int) -> tuple[Row, ...]:
    """Rows that must give the target in up to `most` other phrasings of each fact's relation."""
    return tuple(
        row(em, n, beliefs.beliefs[t][n].prompt, fact.subject, answer=fact.target)
        for n, fact in enumerate(facts)
        for t in beliefs.paraphrases(n)[:most]
    )


def answer_rows(em: EditableModel, beliefs: Sequence[Sequence[Belief]]) -> tuple[Row, ...]:
    """Rows that must give each belief's answer."""
    return tuple(
        row(em, n, b.prompt, b.subject, answer=b.answer) for n, own in enumerate(beliefs) for b in own
    )


def belief_rows(em: EditableModel, beliefs: Sequence[Sequence[Belief]]) -> tuple[Row, ...]:
    """Preserve rows: each belief's prompt with the model's own answer as labels."""
    return tuple(
        row(em, n, b.prompt, b.subject, answer=b.answer, preserve=True)
        for n, own in enumerate(beliefs)
        for b in own
    )


def other_rows(em: EditableModel, beliefs: Sequence[Belief]) -> tuple[Row, ...]:
    """Rows about subjects that no fact edits."""
    return tuple(row(em, OTHER, b.prompt, b.subject, answer=b.answer, preserve=True) for b in beliefs)


def templates_before(beliefs: Survey, kept: Sequence[Fact], at: Sequence[int]) -> dict[int, frozenset[int]]:
    """For each fact of the batch the templates of facts edited before about its subject."""
    found: dict[str, set[int]] = {}
    for fact, n in zip(kept, at, strict=True):
        # under another name the words before the subject are others
        if n != OTHER and beliefs.beliefs and beliefs.beliefs[0][n].subject == fact.subject:
            found.setdefault(fact.subject, set()).add(_template(beliefs, fact))
    subjects = [b.subject for b in beliefs.beliefs[0]] if beliefs.beliefs else []
    return {n: frozenset(found[s]) for n, s in enumerate(subjects) if s in found}


def _template(beliefs: Survey, fact: Fact) -> int:
    return beliefs.templates.index(fact.template) if fact.template in beliefs.templates else -1


def kept_rows(
    em: EditableModel, kept: Sequence[Fact], at: Sequence[int], contexts: Sequence[str]
) -> tuple[Row, ...]:
    """Rows of facts that were edited before: their new answers stay, alone and after a sentence, and end
    where they end now. Where a fact of the batch stands beside one, what is added to their subject must keep
    it."""
    rows = [
        row(em, n, context + f.prompt, f.subject, answer=f.target, preserve=True)
        for f, n in zip(kept, at, strict=True)
        for context in ("", *contexts[:1])
    ]
    found = zip(rows, ends(em, rows), strict=True)
    return tuple(r if end is None else to_its_end(r, end) for r, end in found)


def generic_rows(em: EditableModel, facts: Sequence[Fact]) -> list[Row]:
    """Preserve rows that fit any subject, unless such a prompt is the edited one; one position each."""
    rows = []
    edited: dict[str, list[str]] = {}
    for fact in facts:
        edited.setdefault(fact.subject, []).append(fact.prompt)
    for n, fact in enumerate(facts):
        for before, after in GENERIC:
            prompt = before + fact.subject + after
            # "Rome is" before "Rome is a" would ask for the edited answer, and so would "Rome is a" after an
            # edited "Rome is"; the bare subject only asks for a verb
            near = (p for p in edited[fact.subject] if p.startswith(prompt.strip()) or prompt.startswith(p))
            if all(p != prompt and after == "" for p in near):
                rows.append(row(em, n, prompt, fact.subject, labels=(0,), preserve=True))
    return rows
