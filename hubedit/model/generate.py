"""Greedy generation in batches, giving what one prompt at a time gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from hubedit.errors import TokenError
from hubedit.model.editable import EditableModel
from hubedit.model.memory import out_of_memory, positions, release
from hubedit.model.tokens import decode, token_ids


def greedy(
    em: EditableModel,
    prompts: Sequence[str],
    max_new_tokens: int,
    batch_tokens: int = 8192,
    done: Callable[[int], object] | None = None,
) -> list[str]:
    """The text that follows each prompt, in order: at most `max_new_tokens`, up to the end-of-text token.

    `batch_tokens` bounds a batch's prompts and new tokens together, padding included, and a large vocabulary
    the number of its prompts; when memory runs out all the same, the batch is halved. `done` is called with
    the number of prompts of each batch. Raises TokenError when a prompt and its continuation do not fit the
    model's context.
    """
    ids = _encoded(em, prompts, max_new_tokens)
    made = _continued(em, ids, max_new_tokens, batch_tokens, done)
    return [_text(em, own, new) for own, new in zip(ids, made, strict=True)]


def _encoded(em: EditableModel, prompts: Sequence[str], new: int) -> list[tuple[int, ...]]:
    ids = token_ids(em.tokenizer, prompts)
    for prompt, sequence in zip(prompts, ids, strict=True):
        if len(sequence) + new > em.max_positions:
            raise TokenError(
                f"a prompt of {len(sequence)} tokens and {new} new ones do not fit "
                f"the model's {em.max_positions} positions: {prompt[:60]!r}..."
            )
    return ids


def _continued(
    em: EditableModel,
    ids: Sequence[Sequence[int]],
    new: int,
    batch_tokens: int,
    done: Callable[[int], object] | None,
) -> list[list[int]]:
    """The new tokens of each row."""
    made: list[list[int]] = [[] for _ in ids]
    if new < 1:
        return made
    with em.active(), _own_settings(em, new), _whole_rows(em), torch.no_grad():
        pending = batches(ids, new, batch_tokens, positions(em))
        while pending:
            rows = pending.pop()
            found = _generate(em, [ids[row] for row in rows])
            if found is None:
                half = len(rows) // 2
                pending += [rows[half:], rows[:half]]
                continue
            for row, tokens in zip(rows, found, strict=True):
                made[row] = tokens
            if done is not None:
                done(len(rows))
    return made


def batches(ids: Sequence[Sequence[int]], new: int, budget: int, most: int) -> list[list[int]]:
    """Row numbers grouped by length, at most `most` in a group and within the budget (or one row)."""
    groups: list[list[int]] = []
    for row in sorted(range(len(ids)), key=lambda row: len(ids[row])):
        width = len(ids[row]) + new
        if groups and len(groups[-1]) < most and (len(groups[-1]) + 1) * width <= budget:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def _generate(em: EditableModel, ids: Sequence[Sequence[int]]) -> list[list[int]] | None:
    """New tokens of each row, up to the end-of-text token; None when memory ran out and rows can be split."""
    width = max(len(sequence) for sequence in ids)
    padded = torch.tensor([[*[em.pad_id] * (width - len(s)), *s] for s in ids], device=em.device)
    lengths = torch.tensor([len(s) for s in ids], device=em.device)
    mask = (torch.arange(width, device=em.device)[None] >= width - lengths[:, None]).long()
    model: Any = em.model
    try:
        out = model.generate(input_ids=padded, attention_mask=mask)[:, width:].tolist()
    except (RuntimeError, MemoryError) as error:
        if len(ids) == 1 or not out_of_memory(error):
            raise
        out = None
    if out is None:
        release(em.device)
        return None
    return [_until_end(tokens, em.eos_ids) for tokens in out]


def _until_end(tokens: list[int], ends: tuple[int, ...]) -> list[int]:
    for i, token in enumerate(tokens):
        if token in ends:
            return tokens[:i]
    return tokens


def _text(em: EditableModel, prompt: Sequence[int], new: Sequence[int]) -> str:
    """The new tokens' text as it follows the prompt: some tokenizers drop a leading space otherwise."""
    before = decode(em.tokenizer, prompt)
    whole = decode(em.tokenizer, (*prompt, *new))
    return whole[len(before) :] if whole.startswith(before) else decode(em.tokenizer, new)


@contextmanager
def _own_settings(em: EditableModel, max_new_tokens: int) -> Iterator[None]:
    """Plain greedy settings for the model while the context is open.

    A configuration passed to `generate` would be completed from the model's own, whose repetition
    penalty or temperature would then apply.
    """
    from transformers import GenerationConfig

    model: Any = em.model
    own = model.generation_config
    ends = list(em.eos_ids)
    make: Any = GenerationConfig
    settings = make(
        do_sample=False, max_new_tokens=max_new_tokens, pad_token_id=em.pad_id, eos_token_id=ends or None
    )
    model.generation_config = settings
    try:
        yield
    finally:
        model.generation_config = own


@contextmanager
def _whole_rows(em: EditableModel) -> Iterator[None]:
    """The head gets its input as one block of memory while the context is open.

    transformers passes it a slice of the last position, for which a CPU takes a batched product with a copy
    of the head for every row: a vocabulary of 262,144 in bfloat16 made that 13 times as slow, and 26 GB.
    """
    handle = em.head().register_forward_pre_hook(lambda _, args: (args[0].contiguous(), *args[1:]))
    try:
        yield
    finally:
        handle.remove()
