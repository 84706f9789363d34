"""Text that a model writes itself: every document as if it stood alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hubedit.errors import ModelError
from hubedit.model import sample
from hubedit.model.editable import EditableModel
from hubedit.model.load import load
from hubedit.model.sample import sample_documents
from tests.pico import FAMILIES, TokenizerKind, pico
from tests.watching import predictions

Make = Callable[..., EditableModel]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def build(family: str = "qwen2", tokenizer: TokenizerKind = "byte_bpe") -> EditableModel:
        return load(str(pico(family, tmp_path / f"{family}-{tokenizer}", tokenizer)), device="cpu")

    return build


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_generates(make: Make, family: str) -> None:
    em = make(family)
    documents = sample_documents(em, rows=8, length=40, seed=1)
    assert sum(map(len, documents)) > 200
    assert len(documents) >= 8
    ids = [i for d in documents for i in d]
    assert set(ids).isdisjoint(em.eos_ids)


@pytest.mark.parametrize(
    ("family", "tokenizer"),
    [
        ("llama", "metaspace_bos"),
        ("gemma3_text", "metaspace_bos"),
        ("mistral", "byte_bpe"),
        ("gpt2", "byte_bpe"),
        ("gptj", "byte_bpe"),
    ],
)
def test_restarted_streams_do_not_see_the_document_before(
    make: Make, family: str, tokenizer: TokenizerKind
) -> None:
    """The predictions at every step are those of the document run alone, and its likeliest tokens drawn."""
    em = make(family, tokenizer)
    special = em.tokenizer.all_special_ids
    # many tokens end a document, so that the stream restarts often
    ends = [i for i in range(2, em.vocabulary, 4) if i not in special]
    settings: Any = em.model.generation_config
    settings.eos_token_id = ends
    seen: list[torch.Tensor] = []
    with predictions(em, lambda logits: seen.append(logits[0, -1].float().clone())):
        documents = sample_documents(em, rows=1, length=40, seed=3)
    assert len(documents) > 3
    expected: list[torch.Tensor] = []
    for document in documents:
        alone = document if em.has_bos else [em.tokenizer.bos_token_id, *document]
        logits = em.model(torch.tensor([alone])).logits[0].float()
        expected += list(logits.clone())
        logits[:, special] = -torch.inf
        logits[0, ends] = -torch.inf
        best = logits.topk(sample.TOP)
        drawn = torch.tensor([*alone[1:], -1])[:, None]
        assert (best.indices == drawn).any(1)[:-1].all(), "no other token is drawn"
    # after the last token of a document that is cut nothing was drawn
    assert len(expected) - len(seen) in (0, 1)
    torch.testing.assert_close(torch.stack(seen), torch.stack(expected[: len(seen)]), atol=1e-5, rtol=1e-3)


def test_draws_follow_the_probabilities() -> None:
    """Also of a row whose numbers do not add up to 1; what has none is never drawn."""
    p = torch.tensor([[0.1, 0.0, 0.6, 0.3, 0.0], [0.0, 2.0, 0.0, 0.0, 6.0]]).repeat(20_000, 1)
    drawn = sample.draw(p, torch.Generator().manual_seed(0)).view(-1, 2)
    for column, wanted in ((0, [0.1, 0.0, 0.6, 0.3, 0.0]), (1, [0.0, 0.25, 0.0, 0.0, 0.75])):
        share = torch.bincount(drawn[:, column], minlength=5) / len(drawn)
        torch.testing.assert_close(share, torch.tensor(wanted), atol=0.015, rtol=0)
        assert share[torch.tensor(wanted) == 0].sum() == 0


@pytest.mark.parametrize(("uniform", "wanted"), [(0.0, 1), (1.0, 2)])
def test_draws_at_the_ends_of_the_table(uniform: float, wanted: int) -> None:
    """What has no probability is not drawn where a number meets the table's first or last sum either."""
    p = torch.tensor([[0.0, 0.25, 0.75, 0.0, 0.0]])
    assert sample.pick(p, torch.tensor([uniform])).tolist() == [wanted]


def test_a_model_that_computes_nan_writes_no_text(make: Make) -> None:
    em = make("qwen2")
    nan = torch.tensor(float("nan"))
    with (
        predictions(em, lambda logits: logits[1].copy_(nan)),
        pytest.raises(ModelError, match="computes NaN in float32 when it writes text"),
    ):
        sample_documents(em, rows=2, length=8, seed=1)


def test_a_model_that_only_ends_still_gives_text(make: Make) -> None:
    em = make("gpt2")
    eos = em.eos_ids[0]
    with predictions(em, lambda logits: logits[..., eos].add_(1e4)):
        documents = sample_documents(em, rows=4, length=32, seed=0)
    assert {len(d) for d in documents} == {1}
    assert len(documents) >= 4 * 16


def test_documents_begin_as_prompts_do(make: Make) -> None:
    em = make("mistral", "metaspace_bos")
    assert all(d[0] == em.tokenizer.bos_token_id for d in sample_documents(em, 4, 20, 0))
    seeded = sample_documents(em, 2, 20, 0, prompts=["The capital of", "Mount Everest"])
    for document, text in zip(seeded, ["The capital of", "Mount Everest"], strict=False):
        start = em.tokenizer(text)["input_ids"]
        assert document[: len(start)] == start


def test_a_tokenizer_without_start_gives_text(make: Make) -> None:
    em = make("qwen2")
    em.tokenizer.bos_token = em.tokenizer.eos_token = None
    em.model.config.bos_token_id = em.model.config.eos_token_id = None
    em.model.generation_config.eos_token_id = None
    documents = sample_documents(em, 6, 10, 0)
    assert [len(d) for d in documents] == [10] * 6
    assert len({d[0] for d in documents}) > 1
