"""What ends an answer: the token that the model sets behind it, where that begins no further word.

An answer that is not held to its end may run on: "Vienna" becomes "Viennaz", where the first tokens were
asked for and nothing behind them.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import replace

import torch

from hubedit.edit.probes import PROBE_TOKENS
from hubedit.edit.rows import Row, Rows, by_length
from hubedit.model.editable import EditableModel
from hubedit.model.memory import fitting, pass_size, positions
from hubedit.model.tokens import decode

SURE = 0.5
"""Least probability of a token that counts as the end."""


@torch.no_grad()
def ends(em: EditableModel, rows: Sequence[Row]) -> list[int | None]:
    """For each row the token that the model sets behind its labels, where it is sure of it and that begins no
    word; None elsewhere."""
    # what is scored is the prediction behind the last label
    whole = [Row(n, (*r.ids, r.labels[-1]), r.last, (0,)) for n, r in enumerate(rows)]
    found: list[int | None] = [None] * len(rows)

    def work(part: list[Row]) -> None:
        tensors = Rows.of(em, part)
        logits = tensors.logits(em).float()
        best, token = logits.max(-1)
        sure = (best - logits.logsumexp(-1)).exp() >= SURE
        for r, t, enough in zip(part, token.tolist(), sure.tolist(), strict=True):
            if enough and _ends(em, t):
                found[r.fact] = t

    tokens, scored = pass_size(em, PROBE_TOKENS), positions(em)
    fitting(lambda budget: by_length(whole, budget, scored), work, tokens, em.device)
    return found


def to_its_end(row: Row, end: int) -> Row:
    """The same row with its end among what is scored."""
    return replace(row, ids=(*row.ids, row.labels[-1]), labels=(*row.labels, end))


def _ends(em: EditableModel, token: int) -> bool:
    """Whether a token begins no word and no part of one: punctuation, a new line, the end of the text."""
    if token in em.eos_ids:
        return True
    text = decode(em.tokenizer, [token])
    first = text.strip(" ")[:1]
    # letters, marks that join them, numbers, halves of a character; a hyphen and an apostrophe go on
    return bool(first) and first not in "-'’_\ufffd" and unicodedata.category(first)[0] not in "LMN"
