"""Batched greedy generation gives what one prompt at a time gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hubedit.errors import TokenError
from hubedit.model.editable import EditableModel
from hubedit.model.generate import greedy
from hubedit.model.hooks import run
from hubedit.model.load import load
from hubedit.model.tokens import decode, encode, pad
from tests.model.test_hooks import random_factors
from tests.pico import FAMILIES, POSITIONS
from tests.watching import little_memory, passes

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


def test_it_stops_at_the_end_of_the_text(pico_path: Callable[..., Path]) -> None:
    em = load(str(pico_path("llama", "metaspace_bos")), device="cpu")
    long = greedy(em, PROMPTS, 8)
    end = em.tokenizer(PROMPTS[0] + long[0])["input_ids"][len(encode(em.tokenizer, PROMPTS[0]).ids) + 2]
    settings: Any = em.model.generation_config
    settings.eos_token_id = [2, end]
    assert em.eos_ids == (2, end)
    assert greedy(em, PROMPTS, 8) == [by_hand(em, prompt, 8) for prompt in PROMPTS]
    assert long[0].startswith(greedy(em, PROMPTS, 8)[0])


def test_the_models_own_generation_settings_neither_apply_nor_change(
    pico_path: Callable[..., Path],
) -> None:
    em = load(str(pico_path("qwen2")), device="cpu")
    plain = greedy(em, PROMPTS, 6)
    own: Any = em.model.generation_config
    own.update(do_sample=True, temperature=5.0, top_k=7, repetition_penalty=9.0, max_length=4)
    before = own.to_dict()
    assert greedy(em, PROMPTS, 6) == plain
    assert em.model.generation_config is own
    assert own.to_dict() == before


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("full"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_a_batch_is_halved_when_memory_runs_out(error: RuntimeError, editable: Editable) -> None:
    em = editable("llama")
    expected = greedy(em, PROMPTS, 4)
    rows: list[int] = []
    with passes(em, lambda x: rows.append(len(x))), little_memory(em, rows=1, error=error):
        assert greedy(em, PROMPTS, 4) == expected
    # each batch that is too large once, and then every step of each prompt alone
    assert sorted(n for n in rows if n > 1) == [2, 2, 4] and rows.count(1) >= len(PROMPTS)


def test_other_errors_pass_through(editable: Editable) -> None:
    em = editable("llama")
    broken = RuntimeError("size mismatch")
    with little_memory(em, rows=0, error=broken), pytest.raises(RuntimeError, match="size mismatch"):
        greedy(em, PROMPTS, 4)


def test_the_token_budget_bounds_a_batch(editable: Editable) -> None:
    em = editable("llama")
    sizes: list[int] = []

    def seen(x: Tensor) -> None:
        if x.shape[1] > 1:  # a batch's prompts, and not one of the steps behind them
            sizes.append(len(x) * (x.shape[1] + 4))

    expected = greedy(em, PROMPTS, 4)
    with passes(em, seen):
        assert greedy(em, PROMPTS, 4, batch_tokens=40) == expected
    assert len(sizes) >= 2 and max(sizes) <= 40


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
