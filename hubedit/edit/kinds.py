"""Which subjects are of one kind: a template about people says nothing about a city.

What a model expects after a bare subject tells its kind ("Ada Lovelace" was, "Lyon" lies), so two
subjects are compared by the Bhattacharyya coefficient of their next-token distributions: 1 for equal
ones, 0 for ones without a common token (docs/experiments.md).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hubedit.model.editable import EditableModel
from hubedit.model.hooks import run
from hubedit.model.tokens import encode, pad

KIND_ROWS = 256
SAME_KIND = 0.8
"""From this share of the agreement among a template's own subjects on, another one is of their kind."""


@torch.no_grad()
def next_token(em: EditableModel, texts: Sequence[str]) -> Tensor:
    """(n, vocabulary): the distribution of the token that follows each text. float32."""
    rows = [encode(em.tokenizer, text).ids for text in texts]
    batch = pad(rows, em.pad_id, em.device)
    last = em.num_layers - 1
    hidden = run(em, batch, hidden=[last]).hidden[last]
    at = torch.arange(len(rows), device=em.device)
    return em.head_logits(hidden[at, batch.lengths - 1]).float().softmax(-1)


def alike(
    em: EditableModel, about: Sequence[Sequence[str]], subjects: Sequence[str]
) -> tuple[tuple[bool, ...], ...]:
    """[t][i]: whether subject i is of the kind of the subjects `about[t]`, which one template is about."""
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
