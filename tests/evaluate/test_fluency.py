"""Fluency: entropies worked by hand, and text that depends on its prompt and seed alone."""

from __future__ import annotations

from collections.abc import Callable
from math import log2

import pytest
import torch

from hubedit.evaluate.fluency import TOP, entropy, fluency, words, write
from hubedit.model.editable import EditableModel
from hubedit.model.tokens import encode
from tests.model.test_hooks import random_factors

Editable = Callable[..., EditableModel]

PROMPTS = [
    "The capital of France is",
    "Marie Curie was born in",
    "Ada",
    "The river Nile flows through Egypt and",
]


def test_entropy_by_hand() -> None:
    # bigrams ab ba ab ba: two, each half; trigrams aba bab aba
    tokens = list("ababa")
    assert entropy(tokens, 2) == pytest.approx(1.0)
    assert entropy(tokens, 3) == pytest.approx(-(2 / 3) * log2(2 / 3) - (1 / 3) * log2(1 / 3))
    assert entropy(tokens, 6) == 0


def test_fluency_weighs_them_as_published() -> None:
    # four different words: 3 bigrams (log2 3 bits) and 2 trigrams (1 bit)
    assert fluency("one two three four") == pytest.approx((2 / 3 * log2(3) + 4 / 3 * 1) / 2)
    assert fluency("so so so so so so") == 0
    assert fluency("") == 0


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("The cat, it's here.", ["The", "cat", ",", "it", "'s", "here", "."]),
        (
            "It doesn’t cost 1,000.50 well-known $",
            ["It", "does", "n’t", "cost", "1,000.50", "well-known", "$"],
        ),
        ("in the U.S. ... now", ["in", "the", "U.S.", "...", "now"]),
    ],
)
def test_words_are_those_of_the_treebank(text: str, wanted: list[str]) -> None:
    assert words(text) == wanted


def test_words_agree_with_nltk_where_it_is() -> None:
    nltk = pytest.importorskip("nltk.tokenize")
    text = "Mr. Smith's dog isn't here, it's in the city (of Paris); he paid 3.50 for it!"
    assert words(text.replace("Mr.", "Mr")) == nltk.NLTKWordTokenizer().tokenize(text.replace("Mr.", "Mr"))


@pytest.mark.parametrize("family", ["llama", "gpt2", "mistral", "gemma2", "gpt_neox"])
def test_a_text_depends_neither_on_its_batch_nor_on_its_neighbours(editable: Editable, family: str) -> None:
    em = editable(family)
    texts = write(em, PROMPTS, length=30)
    assert texts == [write(em, [prompt], length=30)[0] for prompt in PROMPTS]
    for prompt, text in zip(PROMPTS, texts, strict=True):
        assert text.startswith(prompt) and len(text) > len(prompt)


def test_seeds_and_patches_change_it(editable: Editable) -> None:
    em = editable()
    plain = write(em, PROMPTS, length=30)
    assert write(em, PROMPTS, length=30) == plain
    assert write(em, PROMPTS, length=30, seed=1) != plain
    patched = em.with_patch(random_factors(em, scale=0.5))
    assert write(patched, PROMPTS, length=30) != plain


def test_only_the_likeliest_tokens_are_sampled(editable: Editable) -> None:
    em = editable()
    ids = encode(em.tokenizer, PROMPTS[0]).ids
    with torch.no_grad():
        best = em.model(input_ids=torch.tensor([ids])).logits[0, -1].topk(TOP).indices.tolist()
    seen = {write(em, PROMPTS[:1], length=len(ids) + 1, seed=seed)[0] for seed in range(40)}
    assert 1 < len(seen) <= TOP
    assert seen <= {em.tokenizer.decode([*ids, token]) for token in best}


def test_a_long_prompt_stays_as_it_is(editable: Editable) -> None:
    em = editable()
    assert write(em, [PROMPTS[3], "Ada"], length=4)[0] == PROMPTS[3]
    assert write(em, []) == []
