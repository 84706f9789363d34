"""Perplexity against one full forward pass at a time."""

from __future__ import annotations

from collections.abc import Callable
from math import exp, inf

import pytest
import torch

from hubedit.model.editable import EditableModel
from hubedit.model.hooks import replaced, run
from hubedit.model.score import perplexity
from hubedit.model.sites import Site
from hubedit.model.tokens import encode, pad
from tests.pico import SENTENCES

Editable = Callable[..., EditableModel]


def test_a_broken_model_has_no_finite_perplexity(editable: Editable) -> None:
    em = editable()
    with replaced(em, {Site(0, "mlp"): lambda x: x * torch.nan}):
        assert perplexity(em, [encode(em.tokenizer, SENTENCES[0]).ids]) == inf


@torch.no_grad()
def test_perplexity_is_the_exponential_of_the_mean_loss(editable: Editable) -> None:
    em = editable("gpt2")
    rows = [encode(em.tokenizer, text).ids for text in SENTENCES[:6]]
    total = number = 0.0
    for row in rows:
        logits = run(em, pad([row], em.pad_id), logits=True).logits
        assert logits is not None
        logp = logits[0].log_softmax(-1)
        total -= sum(float(logp[k, token]) for k, token in enumerate(row[1:]))
        number += len(row) - 1
    assert perplexity(em, rows) == pytest.approx(exp(total / number), rel=1e-4)
    assert perplexity(em, rows, tokens=30) == pytest.approx(exp(total / number), rel=1e-4)
    assert perplexity(em, [*rows, (7,)]) == pytest.approx(exp(total / number), rel=1e-4)


def test_perplexity_of_nothing_is_an_error(editable: Editable) -> None:
    with pytest.raises(ValueError, match="two tokens"):
        perplexity(editable(), [(5,)])
