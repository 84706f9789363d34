"""What follows from an edit, by what the model believes about others.

Whoever is said to be born in Lyon should be a French citizen afterwards. Where answers to one template
follow from the edited one's (`Survey.follows`), other subjects that have the new answer tell what it
implies, when most of them agree; else, what the model says about the new answer itself (`hops.py`). The
edited subject must answer the same.
Without this a new value is learnt for one relation, and what hangs on it keeps the old one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from hubedit.edit.essence import CONFIDENT, Belief, Survey, ask
from hubedit.edit.hops import Hops
from hubedit.facts import Fact
from hubedit.facts.answers import normalise
from hubedit.model.editable import EditableModel

NATIVES = 4
"""At most so many subjects that have the new answer are asked."""
AGREE = 0.6
"""Share of them that must agree, and at least two."""


def implied(
    em: EditableModel, facts: Sequence[Fact], survey: Survey, hops: Hops, most: int
) -> tuple[tuple[Belief, ...], ...]:
    """For each fact up to `most` prompts with the answers that follow from its target, one of every relation
    before a second of any."""
    natives = [_natives(n, fact, survey) for n, fact in enumerate(facts)]
    effects = [_effects(n, survey) if survey.own[n] >= 0 else [] for n in range(len(facts))]
    asked = dict.fromkeys((t, s) for n in range(len(facts)) for t in effects[n] for s in natives[n])
    prompts = [(survey.templates[t][0] + s + survey.templates[t][1], s) for t, s in asked]
    said = dict(zip(asked, ask(em, prompts), strict=True))
    result = []
    for n, fact in enumerate(facts):
        found: dict[int, Belief] = {}
        for t in effects[n]:
            # those who have the new answer are asked the very question; the hop is the model's word at large
            answer = _common([said[t, s] for s in natives[n]]) or hops.beyond(
                survey.relation[survey.own[n]], survey.relation[t], fact.target
            )
            if answer and normalise(answer) not in (
                normalise(survey.beliefs[t][n].answer),
                normalise(fact.target),
            ):
                before, after = survey.templates[t]
                found[t] = Belief(before + fact.subject + after, fact.subject, answer, 1.0)
        result.append(tuple(found[t] for t in survey.varied(list(found))[:most]))
    return tuple(result)


def _common(said: Sequence[Belief]) -> str:
    """The answer of most of them; empty where fewer than two, or too few, agree."""
    sure = [b for b in said if b.confidence >= CONFIDENT]
    counts = Counter(normalise(b.answer) for b in sure)
    common, count = counts.most_common(1)[0] if counts else ("", 0)
    if count < 2 or count < AGREE * len(said):
        return ""
    return next(b.answer for b in sure if normalise(b.answer) == common)


def _natives(n: int, fact: Fact, survey: Survey) -> list[str]:
    """Subjects that already give the fact's target in some phrasing of its relation."""
    if survey.own[n] < 0:
        return []
    known, target = survey.known(survey.relation[survey.own[n]]), normalise(fact.target)
    return [s for s, answer in known.items() if normalise(answer) == target and s != fact.subject][:NATIVES]


def _effects(n: int, survey: Survey) -> list[int]:
    """Templates whose answers follow from fact n's own one."""
    own = survey.own[n]
    # what another fact of the batch says about the same subject is the user's word, not to be guessed
    said = {survey.relation[t] for t in survey.edited(n) if t >= 0}
    return [
        t
        for t in range(len(survey.templates))
        if t != own
        and survey.relation[t] not in said
        and (not survey.fits or survey.fits[t][n])
        and survey.relation[t] != survey.relation[own]
        and survey.follows(own, t)
    ]
