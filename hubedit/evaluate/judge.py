"""A judge: another model that says whether an answer means the same as the target, where words differ.

Optional. The judge is asked in its own chat template, where it has one, and nothing is generated: an answer
counts as right where "yes" is likelier than "no".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import isnan, nan

import torch

from hubedit.cache import Cache, digest
from hubedit.evaluate.forced import forced
from hubedit.evaluate.reading import Reading
from hubedit.facts import Fact
from hubedit.model.chat import chat_of
from hubedit.model.editable import EditableModel
from hubedit.model.forms import as_question, chat_key
from hubedit.progress import Progress, Silent

PROMPT = (
    "Question: {}\nCorrect answer: {}\nGiven answer: {}\n\n"
    "Does the given answer mean the same as the correct answer? Answer yes or no."
)
_YES, _NO = "Yes", "No"
_PART = 64
"""Answers judged at once, and lost at most when a run is interrupted."""

Case = tuple[str, str, str]
"""A question, its correct answer, and what was said."""


def as_judge(em: EditableModel) -> EditableModel:
    """The model, asked in its own chat template where its tokenizer has one."""
    return replace(em, chat=chat_of(em.tokenizer) if em.tokenizer.chat_template else None)


def cases(facts: Sequence[Fact], readings: Iterable[Reading]) -> list[Case]:
    """What there is to judge: the answers to the facts' own prompts, each once, in order."""
    found = (case(fact, reading) for reading in readings for fact in facts)
    return list(dict.fromkeys(one for one in found if one is not None))


def case(fact: Fact, reading: Reading) -> Case | None:
    """The answer to a fact's own prompt; None where it was not asked."""
    said = reading.text(fact, fact.prompt)
    question = fact.question or as_question(fact.prompt)
    return None if said is None else (question, fact.target, said.strip())


def verdicts(
    judge: EditableModel,
    asked: Sequence[Case],
    *,
    cache: Cache | None = None,
    progress: Progress | None = None,
) -> dict[Case, bool]:
    """Whether each answer means the same as the correct one; an empty one does not. Those that do not fit the
    judge's context are left out."""
    cache, progress = cache or Cache(), progress or Silent()
    found = {one: False for one in asked if not one[2]}
    left = [one for one in asked if one[2]]
    progress.start("the judge", len(left), "answers")
    for at in range(0, len(left), _PART):
        part = left[at : at + _PART]
        key = {
            "part": "judge",
            "model": judge.identity,
            "dtype": str(judge.dtype),
            "device": judge.device.type,
        }
        key |= chat_key(judge) | {"cases": digest([PROMPT, *map(list, part)])}
        entry = cache.load("evaluate", key)
        margins = _margins(judge, part) if entry is None else entry.tensors["margins"]
        if entry is None:
            cache.save("evaluate", key, {"margins": margins}, {})
        pairs = zip(part, margins.tolist(), strict=True)
        found |= {one: margin > 0 for one, margin in pairs if not isnan(margin)}
        progress.advance(len(part))
    progress.finish(f"{sum(found.values())} of {len(asked)} mean the target")
    return found


def judged(facts: Sequence[Fact], reading: Reading, right: Mapping[Case, bool]) -> list[list[float]]:
    """For each fact 1.0 or 0.0 in a list; an empty one where its answer was not judged."""
    found = [case(fact, reading) for fact in facts]
    return [[float(right[one])] if one is not None and one in right else [] for one in found]


def _margins(judge: EditableModel, part: Sequence[Case]) -> torch.Tensor:
    """(n,): log-probability of "Yes" less that of "No" after each case; NaN where it does not fit."""
    asked = [PROMPT.format(*one) for one in part]
    texts = [f"{text}\nAnswer:" if judge.chat is None else judge.chat.message(text) for text in asked]
    scores = forced(judge, [(text, word) for text in texts for word in (_YES, _NO)])

    def total(text: str, word: str) -> float:
        score = scores.get((text, word))
        return nan if score is None else score.logp * len(score.labels)

    return torch.tensor([total(text, _YES) - total(text, _NO) for text in texts])
