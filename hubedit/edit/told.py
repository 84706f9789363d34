"""Paraphrases that the model itself tells: how it says the edited facts when it speaks freely.

One prompt a fact fixes one phrasing, and a new value found on it alone need not be read in others. So
the model goes on from each bare subject; where a sentence comes to the old answer, the words between
are a phrasing of the relation ("Ada Lovelace" *came into the world in the city of* "London"). A phrasing
told of one subject is asked of the others of its relation, and kept when they get their old answers: a
whole batch shares what is told of any of them. No rephrasing that belongs to the facts is looked at.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

from hubedit.edit.essence import ANSWER_TOKENS, Survey
from hubedit.edit.sample import sample_documents
from hubedit.facts import Fact
from hubedit.facts.answers import clip, gives
from hubedit.model.editable import EditableModel
from hubedit.model.generate import greedy
from hubedit.model.memory import TokenBudget
from hubedit.model.tokens import decode

TELLINGS = 16
"""Continuations sampled a subject."""
LENGTH = 24
"""Tokens of each, after the subject."""
SUBJECTS = 32
"""Subjects a relation that the model is made to speak about: they share what is told."""
STREAMS = 512
"""Continuations sampled at once; fewer when memory runs out."""
TRIED = 12
"""Phrasings asked of others before those are chosen."""
ASKED = 8
"""Subjects that a phrasing is asked of."""
AGREE = 0.6
"""Share of them that must give their old answer."""


def paraphrases(
    em: EditableModel, facts: Sequence[Fact], survey: Survey, most: int, seed: int
) -> tuple[tuple[tuple[str, str], ...], ...]:
    """For each fact up to `most` templates (before, after) of its relation, the most frequent first."""
    old = [survey.beliefs[t][n].answer if t >= 0 else "" for n, t in enumerate(survey.own)]
    groups: dict[int, list[int]] = defaultdict(list)
    for n, t in enumerate(survey.own):
        if t >= 0 and old[n]:
            groups[t].append(n)
    heard = {facts[n].subject for group in groups.values() for n in group[:SUBJECTS]}
    sentences = _tell(em, sorted(heard), seed)
    result: list[tuple[tuple[str, str], ...]] = [()] * len(facts)
    for t, group in groups.items():
        # templates with the same answers ask for the same relation, and share what is told of it
        kin = [n for u, members in groups.items() if u == t or survey.same(t, u) for n in members]
        told = Counter(after for n in kin for after in _between(sentences.get(facts[n].subject, ()), old[n]))
        for before, after in {facts[n].template for n in kin}:
            if before == "":
                told[after] += len(kin)  # a phrasing that the batch itself holds is sure
        told.pop(survey.templates[t][1] if survey.templates[t][0] == "" else "", None)
        tried = [after for after, _ in sorted(told.items(), key=lambda item: (-item[1], item[0]))[:TRIED]]
        chosen = _confirmed(
            em, [facts[n].subject for n in group[:ASKED]], [old[n] for n in group[:ASKED]], tried
        )
        for n in group:
            result[n] = tuple(("", after) for after in chosen[:most])
    return tuple(result)


def _tell(em: EditableModel, subjects: Sequence[str], seed: int) -> dict[str, list[str]]:
    """What follows each subject in the sentences that the model makes of it."""
    if not subjects:
        return {}
    longest = max(len(em.tokenizer(s, add_special_tokens=False)["input_ids"]) for s in subjects)
    length = min(longest + LENGTH, em.max_positions)
    texts: dict[str, list[str]] = {s: [] for s in subjects}
    sizes = sorted({len(s) for s in subjects}, reverse=True)
    prompts = [s for s in subjects for _ in range(TELLINGS)]
    budget = TokenBudget(em.device, STREAMS * length)
    at = 0
    while at < len(prompts):
        part = prompts[at : at + max(1, budget.tokens // length)]
        try:
            documents = sample_documents(em, len(part), length, seed + at, part)
        except RuntimeError as error:
            budget.shrink(error, len(part), length)
            continue
        at += len(part)
        for ids in documents:
            text = decode(em.tokenizer, ids).lstrip()
            # the longest name that it begins with: "Marie Curie", not "Marie"
            size = next((n for n in sizes if text[:n] in texts), 0)
            if size:
                texts[text[:size]].append(clip(text[size:]))
    return texts


def _between(sentences: Sequence[str], answer: str) -> set[str]:
    """The words that lead from the subject to the answer, each beginning with a space."""
    found = set()
    for sentence in sentences:
        for place in re.finditer(re.escape(answer), sentence):
            words = sentence[: place.start()].strip()
            if words and gives(sentence[place.start() :], (answer,)):
                found.add(f" {words}")
                break
    return found


def _confirmed(
    em: EditableModel, subjects: Sequence[str], answers: Sequence[str], tried: Sequence[str]
) -> list[str]:
    """The phrasings that get most of the subjects' old answers, in their order."""
    said = iter(greedy(em, [s + after for after in tried for s in subjects], ANSWER_TOKENS))
    kept = []
    for after in tried:
        right = sum(gives(next(said), (answer,)) for answer in answers)
        if right >= AGREE * len(subjects):
            kept.append(after)
    return kept
