"""Token rows: a prompt about one fact's subject, and the positions where its prediction counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hubedit.facts import Fact
from hubedit.model.editable import EditableModel
from hubedit.model.ending import final_at
from hubedit.model.forms import put
from hubedit.model.tokens import Batch, continuation, locate, pad


@dataclass(frozen=True)
class Row:
    """`ids`: prompt and all but the last of `labels`; `last`: the subject's last token.

    The prediction counts at the `len(labels)` last positions. `preserve` rows keep the model's own
    distribution there (of `labels` only the number counts), the others must give the labels.
    """

    fact: int
    ids: tuple[int, ...]
    last: int
    labels: tuple[int, ...]
    preserve: bool = False

    @property
    def first_scored(self) -> int:
        """Position of the first prediction that counts."""
        return len(self.ids) - len(self.labels)


def edit_rows(em: EditableModel, facts: Sequence[Fact], contexts: Sequence[str]) -> list[Row]:
    """For each fact the prompt alone and after each context, with its target as labels; in the chat template
    where that is used."""
    rows = []
    for index, fact in enumerate(facts):
        for context in ("", *contexts):
            text, join = put(em, fact, before=context)
            rows.append(row(em, index, text, fact.subject, answer=fact.target, join=join))
    return rows


def row(
    em: EditableModel,
    fact: int,
    text: str,
    subject: str,
    *,
    answer: str = "",
    join: str | None = None,
    end: Sequence[int] = (),
    labels: Sequence[int] = (),
    preserve: bool = False,
) -> Row:
    """One row; what is scored is either an `answer` text, joined to the prompt by `join`, with the tokens
    `end` behind it, or `labels` already in tokens."""
    prompt = locate(em.tokenizer, text, subject)
    tokens = tuple(labels) or (*continuation(em.tokenizer, text, answer, join), *end)
    return Row(fact, (*prompt.ids, *tokens[:-1]), prompt.last, tokens, preserve)


@dataclass(frozen=True)
class Rows:
    """Rows as tensors: `batch` right padded; `fact` (b,) and `last` (b,); and, for every scored
    position, its row (s,), its place in the row (s,) and its label (s,)."""

    batch: Batch
    fact: Tensor
    last: Tensor
    scored_row: Tensor
    scored_at: Tensor
    label: Tensor
    preserve: Tensor

    @classmethod
    def of(cls, em: EditableModel, rows: Sequence[Row]) -> Rows:
        """Rows on the model's device."""
        device = em.device

        def long(values: list[int]) -> Tensor:
            return torch.tensor(values, dtype=torch.long, device=device)

        scored = [
            (i, r.first_scored + k, r.labels[k]) for i, r in enumerate(rows) for k in range(len(r.labels))
        ]
        pad_id = em.pad_id
        return cls(
            pad([r.ids for r in rows], pad_id, device),
            long([r.fact for r in rows]),
            long([r.last for r in rows]),
            long([s[0] for s in scored]),
            long([s[1] for s in scored]),
            long([s[2] for s in scored]),
            torch.tensor([r.preserve for r in rows], device=device),
        )

    def logits(self, em: EditableModel) -> Tensor:
        """Predictions (s, vocabulary) at the scored positions. Gradients flow."""
        return em.head_logits(final_at(em, self.batch, self.scored_row, self.scored_at))


def bare_rows(rows: Sequence[Row]) -> dict[int, Row]:
    """Each fact's first row that must give its target: the prompt with nothing before it."""
    return {r.fact: r for r in reversed(rows) if not r.preserve}


def by_length(rows: Sequence[Row], tokens: int, positions: int = 0) -> list[list[Row]]:
    """Rows of about one length together, at most `tokens` padded tokens and `positions` scored ones (0: any
    number) in a part, or one row. The rows of a fact may part."""
    parts: list[list[Row]] = []
    scored = 0
    for r in sorted(rows, key=lambda r: len(r.ids)):
        many = positions and scored + len(r.labels) > positions
        if not parts or many or (len(parts[-1]) + 1) * len(r.ids) > tokens:
            parts.append([])
            scored = 0
        parts[-1].append(r)
        scored += len(r.labels)
    return parts


def chunks(rows: Sequence[Row], tokens: int) -> list[list[Row]]:
    """Rows grouped so that padded chunks hold at most `tokens` tokens and no fact is split.

    Facts are taken in order of their longest row, so that padding is small.
    """
    by_fact: dict[int, list[Row]] = {}
    for r in rows:
        by_fact.setdefault(r.fact, []).append(r)
    groups = sorted(by_fact.values(), key=lambda g: (max(len(r.ids) for r in g), g[0].fact))
    result: list[list[Row]] = []
    current: list[Row] = []
    for group in groups:
        width = max(len(r.ids) for r in (*current, *group))
        if current and width * (len(current) + len(group)) > tokens:
            result.append(current)
            current = []
        current = current + group
    return [*result, current] if current else result
