"""A chat template's own tokens, which stand in every prompt and which an edit should leave alone.

Ordinary text holds none of them, so a solve that preserves text alone changes each of them a little, and with
them every answer in the template (docs/experiments.md).
"""

from __future__ import annotations

from itertools import islice

import torch
from torch import Tensor

from hubedit.model.editable import EditableModel
from hubedit.model.hooks import run
from hubedit.model.sites import Site
from hubedit.model.tokens import pad, token_ids
from hubedit.name_sentences import sentences

MESSAGES = 16
"""Sentences about names, about one of each kind, that stand as the user's words."""


@torch.no_grad()
def template_keys(em: EditableModel, site: Site) -> Tensor:
    """The site's inputs (n, d_in) at every token of a few messages in the chat template that the model is
    used with; float64, CPU."""
    assert em.chat is not None, "asked only where the template is used"
    rows = token_ids(em.tokenizer, [em.chat.message(text) for text in islice(sentences(), MESSAGES)])
    batch = pad(rows, em.pad_id, em.device)
    found = run(em, batch, inputs=[site]).inputs[site]
    return found[batch.mask.bool()].to("cpu", torch.float64)
