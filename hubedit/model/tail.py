"""Running only the layers above L, and only the tokens from the subject's last one on.

What stands before that token cannot change when something is added at it, so the keys and values of
the upper layers there are computed once and kept in the model's own cache (causal attention). What all
rows begin with, such as a chat template's system prompt, is computed once for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hubedit.model.editable import EditableModel
from hubedit.model.ending import ending_at
from hubedit.model.hooks import entering, forward_on, keeping, starting_from, stopping
from hubedit.model.resume import skipped

_OPENING = 16
"""Tokens that rows must begin with to be computed together; fewer are not worth a pass of their own."""


@dataclass(frozen=True)
class Tail:
    """Rows cut at a position each: tails padded on the right, prefixes on the left, behind what all of them
    begin with.

    `ids` (b, s), `mask` (b, p + s), `positions` (b, s); `prefix`: keys and values (b, heads, p, width) of
    each layer above `layer`; `hidden` (b, s, d): the residual stream after `layer` at the tails, for layer
    -1 what enters the first block. Column `start` is the token at which a row was cut: 0, but where layers
    keep a state in place of keys (linear attention) the tails are whole rows, padded on the left as well.
    """

    layer: int
    ids: Tensor
    mask: Tensor
    positions: Tensor
    prefix: tuple[tuple[Tensor, Tensor], ...]
    hidden: Tensor
    start: int = 0

    @classmethod
    @torch.no_grad()
    def of(cls, em: EditableModel, layer: int, rows: Sequence[Sequence[int]], cuts: Sequence[int]) -> Tail:
        """Cuts `rows` (token ids) at `cuts` (positions).
        `layer`: the last one that is not run again, -1 for none."""
        stateful = bool(em.family.linear_layers)
        shared = 0 if stateful else shared_opening(em, rows, cuts)
        p = max(cuts)
        s = max(len(row) - cut for row, cut in zip(rows, cuts, strict=True))
        b = len(rows)
        ids = torch.full((b, p + s), em.pad_id)
        mask = torch.zeros(b, p + s, dtype=torch.long)
        mask[:, :shared] = 1
        for i, (row, cut) in enumerate(zip(rows, cuts, strict=True)):
            own = torch.tensor(list(row[shared:]))
            start = p - cut + shared
            ids[i, start : start + len(own)] = own
            mask[i, start : start + len(own)] = 1
        ids, mask = ids.to(em.device), mask.to(em.device)
        positions = (mask.cumsum(1) - 1).clamp_min(0)
        if stateful:
            hidden = _after(em, layer, None, input_ids=ids, attention_mask=mask, position_ids=positions)
            return cls(layer, ids, mask, positions, (), hidden, p)
        from transformers import DynamicCache

        cache, last = DynamicCache(), em.block(em.num_layers - 1)
        # the head is not read, and of one position a row it would be copied once for each row
        if shared:
            first = torch.tensor([rows[0][:shared]], device=em.device)
            with stopping(last):
                forward_on(em, cache, input_ids=first, attention_mask=torch.ones_like(first))
            cache.batch_repeat_interleave(b)
        if p > shared:
            with stopping(last):
                forward_on(
                    em,
                    cache,
                    input_ids=ids[:, shared:p],
                    attention_mask=mask[:, :p],
                    position_ids=positions[:, shared:p],
                )
        upper: list[Any] = list(cache.layers[layer + 1 : em.num_layers])
        prefix = tuple((c.keys.contiguous(), c.values.contiguous()) for c in upper)
        own_ids, places = ids[:, p:], positions[:, p:]
        hidden = _after(em, layer, cache, input_ids=own_ids, attention_mask=mask, position_ids=places)
        return cls(layer, own_ids, mask, places, prefix, hidden)

    def select(self, keep: Sequence[int] | Tensor) -> Tail:
        """Some of the rows only."""
        index = torch.as_tensor(keep, device=self.ids.device)
        return Tail(
            self.layer,
            self.ids[index],
            self.mask[index],
            self.positions[index],
            tuple((k[index], v[index]) for k, v in self.prefix),
            self.hidden[index],
            self.start,
        )

    def run(
        self, em: EditableModel, hidden: Tensor, row: Tensor, column: Tensor, *, whole: bool = False
    ) -> Tensor:
        """The residual stream (n, d) after the last block at `row`, `column` (n,), counted from the
        cut, when it is `hidden` (b, s, d) after `layer`. `whole`: the last block is evaluated at every
        position, for a hook there that changes others than those.

        Gradients flow to `hidden`.
        """
        column = column + self.start
        if self.layer == em.num_layers - 1:
            return hidden[row, column]
        from transformers import DynamicCache

        cache = None if em.family.linear_layers else DynamicCache()
        b, p = self.ids.shape[0], self.mask.shape[1] - self.ids.shape[1]
        if p and cache is not None:
            # the layers below never read theirs; the model asks the first one how long the prefix is
            blank = self.hidden.new_zeros(b, 1, p, 1)
            for i in range(self.layer + 1):
                cache.update(blank, blank, i)
            for i, (keys, values) in enumerate(self.prefix, self.layer + 1):
                cache.update(keys, values, i)
        found: dict[Any, Tensor] = {}
        last = em.num_layers - 1
        with ExitStack() as stack:
            for lower in range(self.layer + 1):
                stack.enter_context(skipped(em.block(lower), hidden))
            stack.enter_context(starting_from(em.block(self.layer + 1), hidden))
            if not whole:
                stack.enter_context(ending_at(em, row, column))
            stack.enter_context(keeping(em.block(last), found, last))
            stack.enter_context(stopping(em.block(last)))
            forward_on(em, cache, input_ids=self.ids, attention_mask=self.mask, position_ids=self.positions)
        return found[last].to(em.device)[row, column]


def _after(em: EditableModel, layer: int, cache: Any, **inputs: Tensor) -> Tensor:
    """The residual stream (b, t, d) after `layer`, of a pass that goes no further; for layer -1 what enters
    the first block."""
    found: dict[Any, Tensor] = {}
    with ExitStack() as stack:
        stack.enter_context(
            keeping(em.block(layer), found, layer) if layer >= 0 else entering(em.block(0), found, layer)
        )
        stack.enter_context(stopping(em.block(max(layer, 0))))
        forward_on(em, cache, **inputs)
    return found[layer].to(em.device).contiguous()


def opening(row: Sequence[int], cut: int) -> tuple[int, ...]:
    """What rows have in common that are worth computing together: the first tokens, or () before a cut that
    comes earlier."""
    return tuple(row[:_OPENING]) if cut >= _OPENING else ()


def shared_opening(em: EditableModel, rows: Sequence[Sequence[int]], cuts: Sequence[int]) -> int:
    """How many tokens all rows begin with, all of them before every cut; 0 where that is too few to gain
    anything, or where a sliding window, which counts the padding behind them, is shorter than the rows."""
    window = getattr(em.model.config.get_text_config(), "sliding_window", None)
    longest = max(cuts) + max(len(row) - cut for row, cut in zip(rows, cuts, strict=True))
    if len(rows) == 1 or (window and longest > window):
        return 0
    count = 0
    for tokens in zip(*(row[:cut] for row, cut in zip(rows, cuts, strict=True)), strict=False):
        if len(set(tokens)) > 1:
            break
        count += 1
    return count if count >= _OPENING else 0
