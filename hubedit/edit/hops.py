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

from hubedit.edit.essence import AGREED, CONFIDENT, Belief, Survey, agreement
from hubedit.edit.kinds import fitting
from hubedit.edit.others import Others, ask
from hubedit.edit.templates import Template, mine, overheard, tell
from hubedit.facts import Fact
from hubedit.facts.answers import normalise
from hubedit.model.editable import EditableModel

MOST_ANSWERS = 64
"""Answers of the edited relations that the model is asked about; those of the facts come first."""
TELLINGS = 8
"""Continuations sampled of each."""
MINED = 40
"""At most so many templates about answers."""
LEAST = 3
"""Different answers that must be seen before and after the hop."""
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
    em: EditableModel,
    facts: Sequence[Fact],
    survey: Survey,
    others: Others,
    texts: Sequence[str],
    seed: int,
) -> Hops:
    """Asks about the answers of the edited relations. `texts`: where words before an answer are found."""
    edited = sorted({survey.relation[t] for t in survey.own if t >= 0})
    known = {r: _answers(r, survey, others) for r in sorted(set(survey.relation))} if edited else {}
    counts = Counter(answer for r in edited for answer in known[r].values())
    targets = [f.target.strip() for n, f in enumerate(facts) if survey.own[n] >= 0]
    answers: dict[str, str] = {}
    for answer in [*targets, *(a for a, _ in counts.most_common())]:
        answers.setdefault(normalise(answer), answer)
    objects = list(answers.values())[:MOST_ANSWERS]
    if not objects:
        return Hops()
    first = [_capital(answer) for answer in objects]
    said = _said(em, mine(em, {"": tell(em, first, seed, TELLINGS)}, MINED), first)
    said += _said(em, mine(em, overheard(texts, objects), MINED), objects)
    bridge: dict[tuple[int, int], int] = {}
    for r in edited:
        for e, after in known.items():
            pairs = [(normalise(a), normalise(after[s])) for s, a in known[r].items() if s in after]
            agreed = agreement(pairs)
            if e == r or (agreed is not None and agreed <= AGREED):
                continue  # companies sit in capitals: that does not follow from their country
            rated = [(_better(pairs, own), -t) for t, own in enumerate(said)]
            best, place = max(rated, default=(0.0, 0))
            if best >= BETTER:
                bridge[r, e] = -place
    return Hops(bridge, said)


def _capital(answer: str) -> str:
    """As it stands at the beginning of a sentence: "The United States"."""
    return answer[:1].upper() + answer[1:]


def _answers(relation: int, survey: Survey, others: Others) -> dict[str, str]:
    """Confident answers by subject: of the batch, its companions and others."""
    own = {s: found[relation].answer for s, found in others.beliefs.items() if relation in found}
    return own | survey.answers(relation)


def _said(
    em: EditableModel, templates: Sequence[Template], answers: Sequence[str]
) -> list[dict[str, Belief]]:
    """By template: what the model says with confidence about each answer of a kind that it is about."""
    if not templates:
        return []
    kinds = fitting(em, templates, answers)
    pairs = [(t, a) for t, row in enumerate(kinds) for a, fits in zip(answers, row, strict=True) if fits]
    prompts = [(templates[t].before + a + templates[t].after, a) for t, a in pairs]
    said: list[dict[str, Belief]] = [{} for _ in templates]
    for (t, a), belief in zip(pairs, ask(em, prompts), strict=True):
        if belief.answer and belief.confidence >= CONFIDENT:
            said[t][normalise(a)] = belief
    return said


def _better(pairs: Sequence[tuple[str, str]], said: Mapping[str, Belief]) -> float:
    """From 0, no more equal answers than chance gives, to 1: a template's word on the answer is the word on
    the subject. `pairs`: of each subject its answer, and the answer that may follow."""
    both = [(normalise(said[a].answer), y) for a, y in pairs if a in said]
    if len({a for a, _ in pairs if a in said}) < LEAST:
        return 0.0
    first, second = Counter(x for x, _ in both), Counter(y for _, y in both)
    if min(len(first), len(second)) < LEAST:
        return 0.0
    chance = sum(count * second[x] for x, count in first.items()) / len(both) ** 2
    equal = sum(x == y for x, y in both) / len(both)
    return (equal - chance) / (1 - chance)
