"""What an edit does to unrelated text, against the model's own logits."""

from __future__ import annotations

from collections.abc import Callable
from math import exp

import pytest
import torch

from hubedit.evaluate.drift import Drift, drift
from hubedit.model.editable import EditableModel
from hubedit.model.score import perplexity
from hubedit.model.tokens import encode
from tests.model.test_hooks import random_factors
from tests.pico import SENTENCES

Editable = Callable[..., EditableModel]


def rows_of(em: EditableModel) -> list[list[int]]:
    return [list(encode(em.tokenizer, text).ids) for text in SENTENCES[:6]] + [[5]]


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_divergence_and_perplexity_are_those_of_the_logits(editable: Editable, family: str) -> None:
    em = editable(family)
    rows, factors = rows_of(em), random_factors(em, scale=0.3)
    found = drift(em, em.with_patch(factors), rows, tokens=40)
    total = 0.0
    for row in rows[:-1]:
        with torch.no_grad():
            p = em.model(input_ids=torch.tensor([row])).logits[0, :-1].log_softmax(-1)
            with em.with_patch(factors).active() as edited:
                q = edited(input_ids=torch.tensor([row])).logits[0, :-1].log_softmax(-1)
        total += float((p.exp() * (p - q)).sum())
    count = sum(len(row) - 1 for row in rows)
    data = found.to_json()
    assert data["kl"]["n"] == count
    assert data["kl"]["mean"] == pytest.approx(total / count, rel=1e-3)
    low, high = data["kl"]["interval"]
    assert low < data["kl"]["mean"] < high
    assert data["perplexity_before"] == pytest.approx(perplexity(em, rows), rel=1e-4)
    patched = em.with_patch(factors)
    assert data["perplexity_after"] == pytest.approx(perplexity(patched, rows), rel=1e-4)


def test_the_same_model_does_not_diverge(editable: Editable) -> None:
    em = editable()
    found = drift(em, em, rows_of(em))
    assert found.to_json()["kl"]["mean"] == 0
    assert found.perplexity_before == found.perplexity_after


def test_a_model_alone_has_a_perplexity_only(editable: Editable) -> None:
    em = editable()
    data = drift(em, None, rows_of(em)).to_json()
    assert data.keys() == {"perplexity_before", "perplexity"}
    assert data["perplexity"].keys() == {"n", "interval_before"}
    assert drift(em, None, [[3]]).to_json() == {}


def test_what_is_not_finite_is_absent() -> None:
    nan = float("nan")
    assert Drift((2, 2), (1.0, 1.0), (nan, 1.0), (nan, 0.0)).to_json() == {
        "perplexity_before": pytest.approx(exp(0.5)),
        "perplexity": {"n": 4, "interval_before": pytest.approx([exp(0.5)] * 2)},
    }
    # nats that are finite, and whose exponential is not
    far = Drift((2, 2), (1.0, 1.0), (3000.0, 1.0), (3000.0, 0.0)).to_json()
    assert "perplexity_after" not in far and "interval" not in far["perplexity"] and far["kl"]["n"] == 4


def test_perplexity_has_an_interval_and_the_number_of_tokens() -> None:
    data = Drift((10, 10, 20), (10.0, 20.0, 30.0), (11.0, 24.0, 30.0), (0.1, 0.2, 0.1)).to_json()
    told = data["perplexity"]
    assert told["n"] == data["kl"]["n"] == 40
    for side, name in (("before", "interval_before"), ("after", "interval")):
        low, high = told[name]
        assert low < data[f"perplexity_{side}"] < high
    # rows are drawn with all their tokens: no draw lies outside the rows
    assert told["interval_before"] == pytest.approx([exp(1), exp(2)])
