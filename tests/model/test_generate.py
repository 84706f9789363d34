"""Batched greedy generation gives what one prompt at a time gives."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from hubedit.errors import TokenError
from hubedit.model.editable import EditableModel
from hubedit.model.generate import greedy
from hubedit.model.hooks import run
from hubedit.model.tokens import decode, encode, pad
from tests.model.test_hooks import random_factors
from tests.pico import FAMILIES, POSITIONS

Editable = Callable[..., EditableModel]
PROMPTS = [
    "The capital of France is",
    "Marie Curie was born in",
    "The mother tongue of Danielle Darrieux is",
    "Rome",
]


def by_hand(em: EditableModel, prompt: str, new: int) -> str:
    """Greedy decoding without a cache, one prompt and one full forward pass at a time."""
    start = encode(em.tokenizer, prompt).ids
    ids = list(start)
    for _ in range(new):
        logits = run(em, pad([ids], em.pad_id), logits=True).logits
        assert logits is not None
        best = int(logits[0, -1].argmax())
        if best in em.eos_ids:
            break
        ids.append(best)
    before, whole = decode(em.tokenizer, start), decode(em.tokenizer, ids)
    assert whole.startswith(before)
    return whole[len(before) :]


@pytest.mark.parametrize("family", FAMILIES)
def test_batched_is_single_is_by_hand(family: str, editable: Editable) -> None:
    em = editable(family)
    together = greedy(em, PROMPTS, 6)
    assert together == [greedy(em, [prompt], 6)[0] for prompt in PROMPTS]
    assert together == [by_hand(em, prompt, 6) for prompt in PROMPTS]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_it_sees_applied_factors(family: str, editable: Editable) -> None:
    em = editable(family)
    patched = em.with_patch(random_factors(em, scale=0.5))
    edited = greedy(patched, PROMPTS, 6)
    assert edited == [by_hand(patched, prompt, 6) for prompt in PROMPTS]
    assert edited != greedy(em, PROMPTS, 6)


def test_it_stops_at_the_end_of_the_text(editable: Editable, monkeypatch: pytest.MonkeyPatch) -> None:
    em = editable("llama", "metaspace_bos")
    long = greedy(em, PROMPTS, 8)
    end = em.tokenizer(PROMPTS[0] + long[0])["input_ids"][len(encode(em.tokenizer, PROMPTS[0]).ids) + 2]
    monkeypatch.setattr(em.model.generation_config, "eos_token_id", [2, end])
    assert em.eos_ids == (2, end)
    assert greedy(em, PROMPTS, 8) == [by_hand(em, prompt, 8) for prompt in PROMPTS]
    assert long[0].startswith(greedy(em, PROMPTS, 8)[0])


def test_the_models_own_generation_settings_neither_apply_nor_change(
    editable: Editable, monkeypatch: pytest.MonkeyPatch
) -> None:
    em = editable("qwen2")
    plain = greedy(em, PROMPTS, 6)
    own: Any = copy.deepcopy(em.model.generation_config)
    own.update(do_sample=True, temperature=5.0, top_k=7, repetition_penalty=9.0, max_length=4)
    monkeypatch.setattr(em.model, "generation_config", own)
    before = own.to_dict()
    assert greedy(em, PROMPTS, 6) == plain
    assert em.model.generation_config is own
    assert own.to_dict() == before


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("full"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_a_batch_is_halved_when_memory_runs_out(
    error: RuntimeError, editable: Editable, monkeypatch: pytest.MonkeyPatch
) -> None:
    em = editable("llama")
    expected = greedy(em, PROMPTS, 4)
    real: Any = em.model.generate
    sizes: list[int] = []

    def small(input_ids: torch.Tensor, **more: Any) -> Any:
        sizes.append(len(input_ids))
        if len(input_ids) > 1:
            raise error
        return real(input_ids=input_ids, **more)

    monkeypatch.setattr(em.model, "generate", small)
    assert greedy(em, PROMPTS, 4) == expected
    assert sorted(sizes) == [1, 1, 1, 1, 2, 2, 4]


def test_other_errors_pass_through(editable: Editable, monkeypatch: pytest.MonkeyPatch) -> None:
    em = editable("llama")

    def broken(**more: Any) -> Any:
        raise RuntimeError("size mismatch")

    monkeypatch.setattr(em.model, "generate", broken)
    with pytest.raises(RuntimeError, match="size mismatch"):
        greedy(em, PROMPTS, 4)


def test_the_token_budget_bounds_a_batch(editable: Editable, monkeypatch: pytest.MonkeyPatch) -> None:
    em = editable("llama")
    sizes: list[int] = []
    model: Any = em.model
    inner = model.generate

    def watched(input_ids: torch.Tensor, **more: Any) -> Any:
        rows, width = input_ids.shape
        sizes.append(rows * (width + 4))
        return inner(input_ids=input_ids, **more)

    monkeypatch.setattr(model, "generate", watched)
    assert greedy(em, PROMPTS, 4, batch_tokens=40) == greedy(em, PROMPTS, 4)
    assert len(sizes) > 2
    assert all(size <= 40 for size in sizes[:-1])


def test_edges(editable: Editable) -> None:
    em = editable("gpt2")
    assert greedy(em, [], 5) == []
    assert greedy(em, PROMPTS, 0) == [""] * 4
    with pytest.raises(TokenError, match="positions"):
        greedy(em, ["Rome"], POSITIONS)


def test_the_head_gets_whole_rows_and_keeps_no_hook(editable: Editable) -> None:
    em = editable("llama")
    head = em.model.get_submodule(em.family.head)
    seen: list[bool] = []
    spy = head.register_forward_hook(lambda _, args, out: seen.append(args[0].is_contiguous()))
    greedy(em, PROMPTS, 3)
    spy.remove()
    assert seen and all(seen)
    em.model(input_ids=torch.tensor([[1, 2, 3]]))[0]
    spy = head.register_forward_hook(lambda _, args, out: seen.append(args[0].is_contiguous()))
    em.model(input_ids=torch.tensor([[1, 2, 3], [4, 5, 6]]), logits_to_keep=1)
    spy.remove()
    assert not seen[-1]
