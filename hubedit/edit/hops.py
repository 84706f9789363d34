"""The second hop: what the model says about the answers themselves.

Whoever is born in a country where Japanese is spoken grew up with Japanese: what follows from an answer is
often what the model knows about that answer. So it is asked about the answers of an edited relation as it
was about the subjects. Where its word on the answer ("Japan" *speaks*) is mostly its word on the subject in
another phrasing ("Akira Kurosawa" *was born in a country that speaks*), that phrasing follows from the
relation, and a new answer brings the new word with it, though no other subject may have that answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

from hubedit.edit.essence import AGREED, CONFIDENT, Belief, Survey, agreement, ask
from hubedit.edit.kinds import suited
from hubedit.edit.templates import Template, mine, overheard, tell
from hubedit.facts import Fact
from hubedit.facts.answers import normalise
from hubedit.model.editable import EditableModel
from hubedit.model.tokens import encode

MOST_ANSWERS = 64
"""Answers of the edited relations from which it is seen what follows."""
ANSWER_TELLINGS = 8
"""Continuations sampled of each."""
ABOUT_ANSWERS = 40
"""At most so many templates about answers, of what the model tells and of the text."""
LONGEST = 16
"""Tokens of a target; a longer one is no name that something could be said about."""
LEAST = 3
"""Different answers after the hop that must be the subject's."""
BETTER = 0.5
"""How far the share of equal answers must be from chance to certainty."""


@dataclass(frozen=True)
class Hops:
    """`bridge[r, e]`: the template about answers that turns the answers of relation r into those of relation
    e; `said[t][answer]`: what the model says about an answer (normalised) in the t-th template."""

    bridge: Mapping[tuple[int, int], int] = field(default_factory=dict)
    said: Sequence[Mapping[str, Belief]] = ()

    def beyond(self, relation: int, effect: int, answer: str) -> str:
        """What `effect` is after the answer of the relation; empty where that is not known."""
        t = self.bridge.get((relation, effect))
        found = self.said[t].get(normalise(answer)) if t is not None else None
        return found.answer if found else ""


def second_hops(
    em: EditableModel, facts: Sequence[Fact], survey: Survey, texts: Sequence[str], seed: int
) -> Hops:
    """Asks about the answers of the edited relations, and then, what was found to follow, about the targets.
    `texts`: where words before an answer are found."""
    edited = sorted({survey.relation[t] for t in survey.own if t >= 0})
    answers = _frequent([survey.known(r) for r in edited])
    if not answers:
        return Hops()
    told = tell(em, [_capital(a) for a in answers], seed, ANSWER_TELLINGS)
    templates = mine(em, {"": told}, ABOUT_ANSWERS) + mine(em, overheard(texts, answers), ABOUT_ANSWERS)
    said = _said(em, templates, answers)
    bridge: dict[tuple[int, int], int] = {}
    for r in edited:
        for e in sorted(set(survey.relation) - {r}):
            pairs = survey.pairs(r, e)
            agreed = agreement(pairs)
            if agreed is not None and agreed <= AGREED:
                continue  # companies sit in capitals: that does not follow from their country
            rated = [_better(pairs, own) for own in said]
            best = max(range(len(said)), key=rated.__getitem__, default=0)
            if said and rated[best] >= BETTER:
                bridge[r, e] = best
    used = sorted(set(bridge.values()))
    targets = {f.target.strip() for n, f in enumerate(facts) if survey.own[n] >= 0}
    short = sorted(t for t in targets if len(encode(em.tokenizer, t).ids) <= LONGEST)
    new = _said(em, [templates[t] for t in used], short) if used else []
    for t, found in zip(used, new, strict=True):
        said[t] = found | said[t]
    return Hops(bridge, said)


def _frequent(known: Sequence[Mapping[str, str]]) -> list[str]:
    """The most frequent answers, one relation after the other in turn."""
    ranked = []
    for said in known:
        counts = Counter(said.values())
        ranked.append(sorted(counts, key=lambda a: (-counts[a], a)))
    turns = (answer for turn in zip_longest(*ranked) for answer in turn if answer is not None)
    different: dict[str, str] = {}
    for answer in turns:
        different.setdefault(normalise(answer), answer)
    return list(different.values())[:MOST_ANSWERS]


def _capital(answer: str) -> str:
    """As it stands at the beginning of a sentence: "The United States"."""
    return answer[:1].upper() + answer[1:]


def _said(
    em: EditableModel, templates: Sequence[Template], answers: Sequence[str]
) -> list[dict[str, Belief]]:
    """By template: what the model says with confidence about each answer of a kind that it is about."""
    if not templates:
        return []
    kinds = suited(em, templates, [_capital(a) for a in answers])
    pairs = [(t, a) for t, row in enumerate(kinds) for a, fits in zip(answers, row, strict=True) if fits]
    prompts = []
    for t, a in pairs:
        name = a if templates[t].before else _capital(a)
        prompts.append((templates[t].before + name + templates[t].after, name))
    said: list[dict[str, Belief]] = [{} for _ in templates]
    for (t, a), belief in zip(pairs, ask(em, prompts), strict=True):
        if belief.answer and belief.confidence >= CONFIDENT:
            said[t][normalise(a)] = belief
    return said


def _better(pairs: Sequence[tuple[str, str]], said: Mapping[str, Belief]) -> float:
    """From 0, no more equal answers than chance gives, to 1: a template's word on the answer is the word on
    the subject. `pairs`: of each subject its answer, and the answer that may follow."""
    both = [(normalise(said[a].answer), y) for a, y in pairs if a in said]
    if len({x for x, y in both if x == y}) < LEAST:
        return 0.0
    first, second = Counter(x for x, _ in both), Counter(y for _, y in both)
    chance = sum(count * second[x] for x, count in first.items()) / len(both) ** 2
    equal = sum(x == y for x, y in both) / len(both)
    return (equal - chance) / (1 - chance)
