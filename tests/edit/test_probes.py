"""Probes: a hit is what real greedy generation gives, and a judgement counts hits."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hubedit.edit import probes as module
from hubedit.edit.probes import (
    PREFER,
    Judgement,
    Probes,
    TextState,
    hits,
    judge,
    preferring,
    read_text,
)
from hubedit.edit.rows import Row, edit_rows, row
from hubedit.errors import ConfigError
from hubedit.model.editable import EditableModel
from hubedit.model.generate import greedy
from hubedit.model.hooks import applied, run
from hubedit.model.score import perplexity
from hubedit.model.tokens import encode, pad
from tests.edit.editing import FACTS
from tests.model.test_hooks import random_factors
from tests.pico import FAMILIES, SENTENCES

Editable = Callable[..., EditableModel]


def said(em: EditableModel, prompt: str, new: int) -> tuple[int, ...]:
    """The model's own greedy tokens, one whole forward pass each."""
    ids = list(encode(em.tokenizer, prompt).ids)
    start = len(ids)
    for _ in range(new):
        logits = run(em, pad([ids], em.pad_id), logits=True).logits
        assert logits is not None
        ids.append(int(logits[0, -1].argmax()))
    return tuple(ids[start:])


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_hit_is_what_greedy_generation_gives(
    family: str, editable: Editable, monkeypatch: pytest.MonkeyPatch
) -> None:
    em = editable(family)
    rows, expected = [], []
    for n, fact in enumerate(FACTS):
        for length in (1, 3):
            own = said(em, fact.prompt, length)
            wrong = (*own[:-1], (own[-1] + 1) % em.model.config.vocab_size)
            rows += [row(em, n, fact.prompt, fact.subject, labels=labels) for labels in (own, wrong)]
            expected += [True, False]
    assert hits(em, rows) == expected
    monkeypatch.setattr(module, "PROBE_TOKENS", 1)
    assert hits(em, rows) == expected
    assert hits(em, rows[::-1]) == expected[::-1]


@torch.no_grad()
def test_it_agrees_with_generated_text_and_sees_what_is_applied(editable: Editable) -> None:
    em = editable("gpt2")
    with applied(em, random_factors(em, scale=0.3)):
        texts = greedy(em, [f.prompt for f in FACTS], 3)
        answers = [t if t.strip() else "x" for t in texts]
        pairs = list(zip(FACTS, answers, strict=True))
        rows = [row(em, n, f.prompt, f.subject, answer=a) for n, (f, a) in enumerate(pairs)]
        exact = [said(em, f.prompt, len(r.labels)) == r.labels for f, r in zip(FACTS, rows, strict=True)]
        assert hits(em, rows) == exact
    assert any(exact)


@torch.no_grad()
def test_text_is_read_in_any_parts_and_stays_in_order(
    editable: Editable, monkeypatch: pytest.MonkeyPatch
) -> None:
    em = editable()
    rows = [tuple(range(3, 3 + length)) for length in (9, 2, 5, 7)]
    whole = read_text(em, rows)
    assert [len(t) for t in whole.tokens] == [8, 1, 4, 6]
    monkeypatch.setattr(module, "PROBE_TOKENS", 8)
    parts = read_text(em, rows)
    assert all(torch.equal(a, b) for a, b in zip(whole.tokens, parts.tokens, strict=True))
    assert parts.nll == pytest.approx(whole.nll, rel=1e-5)


def test_no_rows_no_hits(editable: Editable) -> None:
    assert hits(editable(), []) == []


def test_one_row_twice_is_two_hits(editable: Editable) -> None:
    em = editable()
    own = row(em, 0, FACTS[0].prompt, FACTS[0].subject, labels=said(em, FACTS[0].prompt, 1))
    assert hits(em, [own, own]) == [True, True]


@pytest.mark.parametrize(
    ("success", "locality", "text", "score"),
    [
        (1.0, 1.0, 1.0, 1.0),
        (0.5, 1.0, 1.0, 0.75),
        (0.5, 1.0, None, 2 / 3),
        (1.0, 1.0, 0.5, 3 / (1 + 1 + 8)),
        (None, None, 0.9, 0.9**3),
        (1.0, 1.0, 0.0, 0.0),
        (0.0, 1.0, 1.0, 0.0),
        (None, None, None, 0.0),
        (0.4, None, None, 0.4),
    ],
)
def test_the_score_is_the_harmonic_mean_of_what_was_measured(
    success: float | None, locality: float | None, text: float | None, score: float
) -> None:
    assert Judgement(success, locality, None, text, ()).score == pytest.approx(score)


shares = st.floats(0.01, 1.0)


@given(shares, shares, shares, shares)
def test_a_preference_of_one_changes_nothing(
    success: float, locality: float, others: float, text: float
) -> None:
    """To the last bit: the balanced result is what it was before there were preferences."""
    values = [success, locality, others, text**3]
    plain = len(values) / sum(1 / v for v in values)
    assert Judgement(success, locality, others, text, (), PREFER["balanced"]).score == plain


@given(shares, shares)
def test_a_preference_weighs_success_against_what_stays(high: float, low: float) -> None:
    high, low = max(high, low), min(high, low)
    firm = {name: Judgement(low, high, high, None, (), weight).score for name, weight in PREFER.items()}
    bold = {name: Judgement(high, low, low, None, (), weight).score for name, weight in PREFER.items()}
    assert bold["success"] >= firm["success"] - 1e-12 and firm["locality"] >= bold["locality"] - 1e-12
    # the same judgement scores higher the more weight its better side has
    assert bold["success"] >= bold["balanced"] - 1e-12 >= bold["locality"] - 2e-12
    assert firm["success"] <= firm["balanced"] + 1e-12 <= firm["locality"] + 2e-12


@pytest.mark.parametrize("name", PREFER)
def test_a_score_stays_between_its_parts(name: str) -> None:
    weight = PREFER[name]
    assert Judgement(0.6, 0.6, 0.6, None, (), weight).score == pytest.approx(0.6)
    assert 0.3 < Judgement(0.3, 0.9, 0.9, None, (), weight).score < 0.9
    assert Judgement(0.0, 1.0, 1.0, 1.0, (), weight).score == 0.0
    assert Judgement(1.0, 0.0, 1.0, 1.0, (), weight).score == 0.0


def test_the_probes_carry_the_preference_into_the_judgement(editable: Editable) -> None:
    em = editable()
    text = (encode(em.tokenizer, SENTENCES[0]).ids,)
    plain = Probes(tuple(edit_rows(em, FACTS, ())), (), (), text)
    assert preferring(plain, "balanced") == plain
    clean = read_text(em, text)
    for name, weight in PREFER.items():
        assert judge(em, preferring(plain, name), clean, len(FACTS)).weight == weight
    with pytest.raises(ConfigError, match="unknown preference"):
        preferring(plain, "speed")


def test_a_judgement_counts_facts_not_rows(editable: Editable) -> None:
    """A fact with many paraphrases weighs no more than one with none."""
    em = editable()
    fact = FACTS[0]
    good = [row(em, 0, fact.prompt, fact.subject, labels=said(em, fact.prompt, 1)) for _ in range(3)]
    bad = [Row(1, r.ids, r.last, (r.labels[0] + 1,)) for r in good[:1]]
    text = tuple(encode(em.tokenizer, s).ids for s in SENTENCES[:3])
    clean = read_text(em, text)
    found = judge(em, Probes((*good, *bad), tuple(good), (), text), clean, 2)
    assert found.facts == (1.0, 0.0)
    assert found.success == 0.5
    assert found.locality == 1.0
    none = judge(em, Probes((), (), (), ()), clean, 2)
    assert (none.locality, none.text) == (None, None)


@torch.no_grad()
def test_text_is_read_as_perplexity_and_agrees_with_itself(editable: Editable) -> None:
    em = editable("gpt2")
    rows = [encode(em.tokenizer, s).ids for s in SENTENCES[:8]]
    state = read_text(em, rows)
    assert math.exp(state.nll) == pytest.approx(perplexity(em, rows), rel=1e-4)
    assert [len(t) for t in state.tokens] == [len(r) - 1 for r in rows]
    for tokens, ids in zip(state.tokens, rows, strict=True):
        logits = run(em, pad([ids], 0), logits=True).logits
        assert logits is not None
        best = logits[0, :-1].softmax(-1).max(-1)
        assert torch.equal(torch.where(best.values >= 0.5, best.indices, -2 - best.indices), tokens)
    assert state.agreement(state) in (1.0, None)


def test_agreement_counts_the_sure_predictions_whatever_the_others_confidence() -> None:
    clean = TextState((torch.tensor([5, -9, 0, 3]),), 1.0)
    assert clean.agreement(clean) == 1.0
    unsure = TextState((torch.tensor([-7, 1, -2, 3]),), 1.0)
    assert clean.agreement(unsure) == 1.0, "5 and 0 unsurely, but the same"
    assert clean.agreement(TextState((torch.tensor([4, -9, 0, -6]),), 1.0)) == pytest.approx(1 / 3)
    assert TextState((torch.full((4,), -2),), 1.0).agreement(clean) is None


def test_rows_of_one_token_say_nothing(editable: Editable) -> None:
    em = editable()
    assert read_text(em, [(5,), (5, 6)]).nll == pytest.approx(read_text(em, [(5, 6)]).nll, abs=1e-5)


def test_edit_rows_can_be_judged(editable: Editable) -> None:
    em = editable()
    assert len(hits(em, edit_rows(em, FACTS, ["It was a day. "]))) == 2 * len(FACTS)
