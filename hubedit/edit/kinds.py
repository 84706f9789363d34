"""Which subjects are of one kind: a template about people says nothing about a city.

What a model expects after a bare subject tells its kind ("Ada Lovelace" was, "Lyon" lies), so two
subjects are compared by the Bhattacharyya coefficient of their next-token distributions: 1 for equal
ones, 0 for ones without a common token. What passes that must also expect the template's own words about
as much as the template's own subjects do ("Ada Lovelace lies in the country of" surprises). The first alone
lets a third of the wrong subjects pass, the second needs a pass over every pair (docs/experiments.md).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from statistics import median

import torch
from torch import Tensor

from hubedit.edit.templates import Template
from hubedit.model.editable import EditableModel
from hubedit.model.ending import final_at
from hubedit.model.score import likelihoods
from hubedit.model.tokens import pad, token_ids

KIND_ROWS = 256
SAME_KIND = 0.8
"""From this share of the agreement among a template's own subjects on, another one is of their kind."""
SURPRISED = 4.0
"""Nats by which a template's words may be less expected after a subject than after its own subjects."""
WORDS = 4
"""So many of them tell as much as all (docs/experiments.md)."""
OWN = 12
"""Subjects of its own from which it is known how much its words are expected."""


@torch.no_grad()
def next_token(em: EditableModel, texts: Sequence[str]) -> Tensor:
    """(n, vocabulary): the distribution of the token that follows each text. float32."""
    rows = token_ids(em.tokenizer, texts)
    batch = pad(rows, em.pad_id, em.device)
    final = final_at(em, batch, torch.arange(len(rows), device=em.device), batch.lengths - 1)
    return em.head_logits(final).float().softmax(-1)


class Kinds:
    """Which of `subjects` are of the kind of the subjects that each template is about."""

    def __init__(self, em: EditableModel, templates: Sequence[Template], subjects: Sequence[str]) -> None:
        """The templates' own subjects are read here; the others' words when `fit` asks."""
        self._em, self._templates, self._subjects = em, tuple(templates), tuple(subjects)
        self._expected: dict[tuple[str, str], float] = {}
        self.near = alike(em, [t.about for t in templates], subjects)
        """[t][i]: whether what follows subject i is like what follows the template's own."""
        own = [(t, s) for t in templates for s in t.about[:OWN]]
        words = dict(zip(own, self._words(own), strict=True))
        # a template that ends with its subject has no words to expect
        self._least = [
            median(words[t, s] for s in t.about[:OWN]) - SURPRISED if t.after.strip() else -math.inf
            for t in templates
        ]

    def fit(self, pairs: Sequence[tuple[int, int]]) -> list[bool]:
        """Of pairs (template t, subject i) that are `near`: whether the template's words are expected too."""
        words = self._words([(self._templates[t], self._subjects[i]) for t, i in pairs])
        return [word >= self._least[t] for word, (t, _) in zip(words, pairs, strict=True)]

    def _words(self, pairs: Sequence[tuple[Template, str]]) -> list[float]:
        """The log-probability of a template's first words after the subject, pair by pair."""
        asked = [(t.before + s, _beginning(t.after)) for t, s in pairs]
        # many templates begin alike; of no words nothing is to be known
        new = [a for a in dict.fromkeys(asked) if a[1] and a not in self._expected]
        self._expected |= dict(zip(new, _expected(self._em, new), strict=True))
        return [self._expected.get(a, 0.0) for a in asked]


def suited(
    em: EditableModel, templates: Sequence[Template], subjects: Sequence[str]
) -> tuple[tuple[bool, ...], ...]:
    """[t][i]: whether subject i is of the kind of the subjects that template t is about."""
    kinds = Kinds(em, templates, subjects)
    near = [(t, i) for t, row in enumerate(kinds.near) for i, same in enumerate(row) if same]
    found = dict(zip(near, kinds.fit(near), strict=True))
    return tuple(tuple(found.get((t, i), False) for i in range(len(subjects))) for t in range(len(templates)))


def _expected(em: EditableModel, pairs: Sequence[tuple[str, str]]) -> list[float]:
    """The log-probability of words after a prompt."""
    rows = token_ids(em.tokenizer, [prompt + words for prompt, words in pairs])
    # as it stands in the text, where the subject's last token may have merged with what follows
    starts = [
        next((i for i, (a, b) in enumerate(zip(short, whole, strict=False)) if a != b), len(short))
        for short, whole in zip(token_ids(em.tokenizer, [p for p, _ in pairs]), rows, strict=True)
    ]
    return likelihoods(em, rows, starts)


def _beginning(words: str) -> str:
    return "".join(re.findall(r"\s*\S+", words)[:WORDS])


def alike(
    em: EditableModel, about: Sequence[Sequence[str]], subjects: Sequence[str]
) -> tuple[tuple[bool, ...], ...]:
    """[t][i]: whether what follows subject i is like what follows the subjects `about[t]`."""
    known = list(dict.fromkeys(s for members in about for s in members))
    centres = _centres(em, known, [set(members) for members in about])
    own = _agreement(em, known, centres)
    row = {s: i for i, s in enumerate(known)}
    limit = [
        SAME_KIND * sum(float(own[row[s], t]) for s in members) / len(members)
        for t, members in enumerate(about)
    ]
    found = own if list(subjects) == known else _agreement(em, subjects, centres)
    return tuple(tuple(v >= limit[t] for v in found[:, t].tolist()) for t in range(len(about)))


def _centres(em: EditableModel, subjects: Sequence[str], about: Sequence[set[str]]) -> Tensor:
    """(templates, vocabulary): the root of the mean distribution after each template's own subjects.

    Subject by subject into the sums: a table of all of them has no room beside a big vocabulary.
    """
    total: dict[int, Tensor] = {}
    for part in _parts(subjects):
        for subject, p in zip(part, next_token(em, part), strict=True):
            for t, members in enumerate(about):
                if subject in members:
                    total[t] = total[t] + p if t in total else p.clone()
    return torch.stack([total[t] / len(members) for t, members in enumerate(about)]).sqrt()


def _agreement(em: EditableModel, subjects: Sequence[str], centres: Tensor) -> Tensor:
    """(subjects, templates): Bhattacharyya coefficients."""
    return torch.cat([(next_token(em, part).sqrt() @ centres.T).cpu() for part in _parts(subjects)])


def _parts(subjects: Sequence[str]) -> list[list[str]]:
    return [list(subjects[a : a + KIND_ROWS]) for a in range(0, len(subjects), KIND_ROWS)]
