"""Messages in a chat template, whose tokens an edit should leave alone.

The template's own tokens stand in every prompt and in no ordinary text. So a solve that preserves text alone
changes each of them a little, and with them every answer in the template (docs/experiments.md).
"""

from __future__ import annotations

from itertools import islice
from math import sqrt

import torch
from torch import Tensor

from hubedit.edit.rows import Row, by_length
from hubedit.edit.solve.keys import KEY_TOKENS
from hubedit.model.editable import EditableModel
from hubedit.model.hooks import run
from hubedit.model.memory import pass_size
from hubedit.model.sites import Site
from hubedit.model.tokens import pad, token_ids
from hubedit.name_sentences import sentences

MESSAGES = 16
"""Sentences about names that stand as the user's words: one of each kind in the list, and one more."""


def messages(em: EditableModel) -> list[tuple[int, ...]]:
    """Their tokens; none where the model is used without a template."""
    texts = [] if em.chat is None else [em.chat.message(text) for text in islice(sentences(), MESSAGES)]
    return [tuple(ids) for ids in token_ids(em.tokenizer, texts)]


@torch.no_grad()
def template_keys(em: EditableModel, site: Site) -> Tensor:
    """The site's inputs (n, d_in) at every token of the `messages`, of a model that is used with a template,
    scaled so that K^T K is their second moment. float64, CPU.

    What all messages begin with has the same inputs in each, and is there once, with their number as weight.
    """
    ids = messages(em)
    ends = (n for n, tokens in enumerate(zip(*ids, strict=False)) if len(set(tokens)) > 1)
    begin = next(ends, 0)
    found: list[Tensor] = []
    for part in by_length([Row(0, row, 0, ()) for row in ids], pass_size(em, KEY_TOKENS)):
        batch = pad([r.ids for r in part], em.pad_id, em.device)
        inputs = run(em, batch, inputs=[site]).inputs[site].to("cpu", torch.float64)
        if not found:
            found.append(inputs[0, :begin] * sqrt(len(ids)))
        found += [own[begin : len(r.ids)] for own, r in zip(inputs, part, strict=True)]
    return torch.cat(found) / sqrt(sum(map(len, ids)))
