"""Greedy generation in batches, giving what one prompt at a time gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import exp
from typing import Any

import torch
from torch import Tensor

from hubedit.errors import TokenError
from hubedit.facts.answers import clip
from hubedit.model.editable import EditableModel
from hubedit.model.memory import out_of_memory, positions, release
from hubedit.model.tokens import decode, token_ids


@dataclass(frozen=True)
class Answer:
    """The first sentence of what the model says. `confidence`: the geometric mean of its tokens'
    probabilities; `first`: its first token's. Of an empty answer both are 0."""

    text: str
    confidence: float = 0.0
    first: float = 0.0


def greedy(
    em: EditableModel, prompts: Sequence[str], max_new_tokens: int, batch_tokens: int = 8192
) -> list[str]:
    """The text that follows each prompt, in order: at most so many tokens, up to the end-of-text token.

    `batch_tokens` bounds a batch's prompts and new tokens together, padding included, and a large vocabulary
    the number of its prompts; when memory runs out all the same, the batch is halved. Raises TokenError when
    a prompt and its continuation do not fit the model's context.
    """
    ids = _encoded(em, prompts, max_new_tokens)
    made = _continued(em, ids, max_new_tokens, batch_tokens, None)
    return [_text(em, own, new) for own, new in zip(ids, made, strict=True)]


def answers(
    em: EditableModel, prompts: Sequence[str], max_new_tokens: int, batch_tokens: int = 8192
) -> list[Answer]:
    """What `greedy` gives up to the end of its first sentence, and how sure the model is of it."""
    ids = _encoded(em, prompts, max_new_tokens)
    logp: dict[int, list[float]] = {}
    made = _continued(em, ids, max_new_tokens, batch_tokens, logp)
    found = []
    for row, (own, new) in enumerate(zip(ids, made, strict=True)):
        text = clip(_text(em, own, new))
        if not text:
            found.append(Answer(""))
            continue
        # the tokens that it takes to say it: what comes after the sentence does not count
        count = next(n for n in range(1, len(new) + 1) if clip(_text(em, own, new[:n])) == text)
        sure = logp[row][:count]
        found.append(Answer(text, exp(sum(sure) / count), exp(sure[0])))
    return found


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
    logp: dict[int, list[float]] | None,
) -> list[list[int]]:
    """The new tokens of each row; `logp`, where it is given, learns their log-probabilities."""
    made: list[list[int]] = [[] for _ in ids]
    if new < 1:
        return made
    with em.active(), _own_settings(em, new), _whole_rows(em), torch.no_grad():
        pending = batches(ids, new, batch_tokens, positions(em))
        while pending:
            rows = pending.pop()
            steps: list[Tensor] = []
            found = _generate(em, [ids[row] for row in rows], None if logp is None else steps)
            if found is None:
                half = len(rows) // 2
                pending += [rows[half:], rows[:half]]
                continue
            for row, tokens in zip(rows, found, strict=True):
                made[row] = tokens
            if logp is not None:
                logp |= dict(zip(rows, torch.stack(steps, 1).tolist(), strict=True))
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


def _generate(
    em: EditableModel, ids: Sequence[Sequence[int]], logp: list[Tensor] | None
) -> list[list[int]] | None:
    """New tokens of each row, up to the end-of-text token; None when memory ran out and rows can be split.
    `logp` learns the log-probability of every step's token, (rows,)."""

    def watch(_: Tensor, logits: Tensor) -> Tensor:
        assert logp is not None
        logp.append((logits.amax(-1) - logits.logsumexp(-1)).float())
        return logits

    width = max(len(sequence) for sequence in ids)
    padded = torch.tensor([[*[em.pad_id] * (width - len(s)), *s] for s in ids], device=em.device)
    lengths = torch.tensor([len(s) for s in ids], device=em.device)
    mask = (torch.arange(width, device=em.device)[None] >= width - lengths[:, None]).long()
    model: Any = em.model
    try:
        watching = {} if logp is None else {"logits_processor": [watch]}
        out = model.generate(input_ids=padded, attention_mask=mask, **watching)[:, width:].tolist()
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
