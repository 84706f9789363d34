"""Probabilities and ranks against one full forward pass at a time."""

from __future__ import annotations

from collections.abc import Callable
from math import exp, inf

import pytest
import torch

from hubedit.model.editable import EditableModel
from hubedit.model.generate import greedy
from hubedit.model.hooks import applied, replaced, run
from hubedit.model.score import likelihoods, perplexity, scores
from hubedit.model.sites import Site
from hubedit.model.tokens import continuation, encode, pad
from tests.model.test_hooks import random_factors
from tests.pico import FAMILIES, SENTENCES

Editable = Callable[..., EditableModel]
PROMPTS = ["The capital of France is", "Marie Curie was born in", "Rome", "The capital of France is"]
ANSWERS = ["Paris", "a very large city", "is", "the capital of Japan"]


def by_hand(em: EditableModel, prompt: str, answer: str) -> tuple[float, float, int]:
    ids, label = encode(em.tokenizer, prompt).ids, continuation(em.tokenizer, prompt, answer)
    logits = run(em, pad([(*ids, *label)], em.pad_id), logits=True).logits
    assert logits is not None
    logp = logits[0, len(ids) - 1 : -1].log_softmax(-1)
    own = [float(logp[k, token]) for k, token in enumerate(label)]
    order = logp[0].argsort(descending=True).tolist()
    return sum(own) / len(own), exp(own[0]), order.index(label[0]) + 1


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_scores_are_those_of_one_pass_at_a_time(family: str, editable: Editable) -> None:
    em = editable(family)
    for tokens in (8192, 40, 1):
        for found, prompt, answer in zip(scores(em, PROMPTS, ANSWERS, tokens), PROMPTS, ANSWERS, strict=True):
            logp, first, rank = by_hand(em, prompt, answer)
            assert found.logp == pytest.approx(logp, abs=1e-4)
            assert found.first == pytest.approx(first, abs=1e-5)
            assert found.rank == rank


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_likelihood_of_a_rows_end_is_the_sum_of_its_tokens(family: str, editable: Editable) -> None:
    em = editable(family)
    rows, starts, expected = [], [], []
    for prompt, answer in zip(PROMPTS, ANSWERS, strict=True):
        ids, label = encode(em.tokenizer, prompt).ids, continuation(em.tokenizer, prompt, answer)
        rows.append((*ids, *label))
        starts.append(len(ids))
        expected.append(by_hand(em, prompt, answer)[0] * len(label))
    for tokens in (8192, 1):
        assert likelihoods(em, rows, starts, tokens) == pytest.approx(expected, abs=1e-3)
    assert likelihoods(em, [rows[0][:1]], [0]) == [0.0], "nothing before it"
    assert likelihoods(em, [], []) == []


@torch.no_grad()
def test_what_the_model_generates_ranks_first(editable: Editable) -> None:
    em = editable("llama", "metaspace_bos")
    with applied(em, random_factors(em, scale=0.3)):
        said = greedy(em, PROMPTS, 1)
        asked = [(p, s) for p, s in zip(PROMPTS, said, strict=True) if s.strip()]
        found = scores(em, [p for p, _ in asked], [s for _, s in asked])
    whole = [
        (s.first, s.rank)
        for s, (p, text) in zip(found, asked, strict=True)
        if len(continuation(em.tokenizer, p, text)) == 1
    ]
    assert all(rank == 1 and 0 < first <= 1 for first, rank in whole)


def test_nothing_asked_is_nothing_found(editable: Editable) -> None:
    assert scores(editable(), [], []) == []
    with pytest.raises(ValueError, match="shorter"):
        scores(editable(), PROMPTS, ANSWERS[:1])


def test_a_broken_model_ranks_last_and_has_no_finite_perplexity(editable: Editable) -> None:
    em = editable()
    with replaced(em, {Site(0, "mlp"): lambda x: x * torch.nan}):
        found = scores(em, PROMPTS, ANSWERS)
        assert perplexity(em, [encode(em.tokenizer, SENTENCES[0]).ids]) == inf
    assert all(s.logp != s.logp for s in found)
    assert all(s.rank == em.model.config.vocab_size + 1 for s in found)


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


def test_a_join_decides_which_tokens_are_scored(editable: Editable) -> None:
    em = editable()
    glued, usual = scores(em, PROMPTS[:1] * 2, ["ly", "ly"]), scores(em, PROMPTS[2:3], ["ly"])
    own = scores(em, PROMPTS[:1], ["ly"], joins={PROMPTS[0]: ""})
    assert glued[0] == glued[1] != own[0]
    assert scores(em, PROMPTS[2:3], ["ly"], joins={PROMPTS[0]: ""}) == usual
