"""Likelihoods against one full forward pass at a time."""

from __future__ import annotations

from collections.abc import Callable
from math import exp, inf

import pytest
import torch

from hubedit.model.editable import EditableModel
from hubedit.model.hooks import replaced, run
from hubedit.model.score import likelihoods, perplexity
from hubedit.model.sites import Site
from hubedit.model.tokens import continuation, encode, pad
from tests.pico import SENTENCES

Editable = Callable[..., EditableModel]
PROMPTS = ["The capital of France is", "Marie Curie was born in", "Rome", "The capital of France is"]
ANSWERS = ["Paris", "a very large city", "is", "the capital of Japan"]


def by_hand(em: EditableModel, ids: tuple[int, ...], label: tuple[int, ...]) -> float:
    logits = run(em, pad([(*ids, *label)], em.pad_id), logits=True).logits
    assert logits is not None
    logp = logits[0, len(ids) - 1 : -1].log_softmax(-1)
    return sum(float(logp[k, token]) for k, token in enumerate(label))


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_likelihood_of_a_rows_end_is_the_sum_of_its_tokens(family: str, editable: Editable) -> None:
    em = editable(family)
    rows, starts, expected = [], [], []
    for prompt, answer in zip(PROMPTS, ANSWERS, strict=True):
        ids, label = encode(em.tokenizer, prompt).ids, continuation(em.tokenizer, prompt, answer)
        rows.append((*ids, *label))
        starts.append(len(ids))
        expected.append(by_hand(em, ids, label))
    for tokens in (8192, 1):
        assert likelihoods(em, rows, starts, tokens) == pytest.approx(expected, abs=1e-3)
    assert likelihoods(em, [rows[0][:1]], [0]) == [0.0], "nothing before it"
    assert likelihoods(em, [], []) == []


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
