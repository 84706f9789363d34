"""Statements as token rows with loss weights, and prompts as rows to be answered."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from tests.lab.world import KnownFact, Statement

# Names cannot be predicted, so the loss on them is mostly noise; yet the model must be able to
# write whole sentences by itself, so it is not zero.
_OTHER_WEIGHT = 0.2

_Row = tuple[list[int], list[float]]


@dataclass(frozen=True)
class Pack:
    """Statements in both spellings: at the start of a text, and after a space."""

    tokenizer: PreTrainedTokenizerFast
    first: list[_Row]
    later: list[_Row]

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerFast, statements: Sequence[Statement]) -> Pack:
        """Tokenise all statements; the answer's tokens weigh 1."""
        return cls(tokenizer, _encode(tokenizer, statements, ""), _encode(tokenizer, statements, " "))

    def rows(self, length: int, rng: random.Random) -> Iterator[_Row]:
        """Endless rows of `length` tokens, whole statements only, in a new order every round.

        Half of the statements follow the one before after a space, half start a new text.
        """
        tokenizer = self.tokenizer
        eos, pad = int(tokenizer.eos_token_id), int(tokenizer.pad_token_id)
        begin = [int(tokenizer.bos_token_id)] if tokenizer("").input_ids else []
        pool: list[int] = []
        while True:
            ids, weights = list(begin), [0.0] * len(begin)
            while True:
                if len(pool) < 64:
                    fresh = list(range(len(self.first)))
                    rng.shuffle(fresh)
                    pool = fresh + pool  # taken from the end: what is left over comes first
                joined = len(ids) > len(begin) and rng.random() < 0.5
                between = [] if joined or len(ids) == len(begin) else [eos, *begin]
                rows = self.later if joined else self.first
                room = length - len(ids) - len(between)
                fits = next((k for k in range(1, 49) if len(rows[pool[-k]][0]) <= room), None)
                if fits is None:
                    break
                text, weight = rows[pool.pop(-fits)]
                ids += between + text
                weights += [_OTHER_WEIGHT] * min(1, len(between)) + [0.0] * (len(between) - 1) + weight
            yield ids + [pad] * (length - len(ids)), weights + [0.0] * (length - len(weights))

    def batches(self, rows: int, length: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Endless batches: token ids and loss weights, both (rows, length)."""
        stream = self.rows(length, random.Random(f"rows-{seed}"))
        while True:
            batch = [next(stream) for _ in range(rows)]
            yield torch.tensor([r[0] for r in batch]), torch.tensor([r[1] for r in batch])


def _encode(tokenizer: PreTrainedTokenizerFast, statements: Sequence[Statement], before: str) -> list[_Row]:
    texts = [before + s.text for s in statements]
    encoded = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
    rows: list[_Row] = []
    for s, ids, offsets in zip(statements, encoded.input_ids, encoded.offset_mapping, strict=True):
        start = s.start + len(before)
        end = start + len(s.answer)
        rows.append((ids, [1.0 if b > start and a < end else _OTHER_WEIGHT for a, b in offsets]))
    return rows


def share_right(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerFast,
    asked: Sequence[tuple[str, str]],
    rows: int = 128,
) -> list[bool]:
    """For each (prompt, answer): whether greedy generation gives exactly the answer's tokens.

    One forward pass over prompt and answer decides it: generation reproduces the answer if and only
    if every one of its tokens is the most likely one after what stands before it.
    """
    texts = [f"{prompt} {answer}" for prompt, answer in asked]
    device = next(model.parameters()).device
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    right = [False] * len(texts)
    was_training = model.training
    model.eval()
    for low in range(0, len(order), rows):
        chosen = order[low : low + rows]
        batch = tokenizer(
            [texts[i] for i in chosen], return_offsets_mapping=True, padding=True, return_tensors="pt"
        )
        with torch.inference_mode():
            best = model(input_ids=batch.input_ids.to(device)).logits.argmax(-1).cpu()
        hit = best[:, :-1] == batch.input_ids[:, 1:]
        starts = torch.tensor([len(asked[i][0]) for i in chosen])
        in_answer = batch.offset_mapping[:, 1:, 1] > starts[:, None]
        for row, ok in zip(chosen, (hit | ~in_answer).all(1).tolist(), strict=True):
            right[row] = ok
    model.train(was_training)
    return right


def questions(facts: Sequence[KnownFact], kind: str) -> list[tuple[str, str]]:
    """(prompt, answer) pairs: `trained` phrasings, `held_out` ones, or `two_hop` never stated."""
    if kind == "trained":
        return [(p, f.answer) for f in facts for p in f.prompts]
    wanted = [f for f in facts if bool(f.prompts) == (kind == "held_out")]
    return [(p, f.answer) for f in wanted for p in f.held_out]
