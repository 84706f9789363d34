"""Running only the layers above L, and only the tokens from the subject's last one on.

What stands before that token cannot change when something is added at it, so the keys and values of
the upper layers there are computed once and kept in the model's own cache (causal attention).
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


@dataclass(frozen=True)
class Tail:
    """Rows cut at a position each: prefixes padded on the left, tails padded on the right.

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
        p = max(cuts)
        s = max(len(row) - cut for row, cut in zip(rows, cuts, strict=True))
        b = len(rows)
        ids = torch.full((b, p + s), em.pad_id)
        mask = torch.zeros(b, p + s, dtype=torch.long)
        for i, (row, cut) in enumerate(zip(rows, cuts, strict=True)):
            ids[i, p - cut : p - cut + len(row)] = torch.tensor(list(row))
            mask[i, p - cut : p - cut + len(row)] = 1
        ids, mask = ids.to(em.device), mask.to(em.device)
        positions = (mask.cumsum(1) - 1).clamp_min(0)
        found: dict[Any, Tensor] = {}
        from transformers import DynamicCache

        whole = bool(em.family.linear_layers)
        cache = None if whole else DynamicCache()
        with ExitStack() as stack:
            stack.enter_context(
                keeping(em.block(layer), found, layer) if layer >= 0 else entering(em.block(0), found, layer)
            )
            # the head is not read, and of one position a row it would be copied once for each row
            stack.enter_context(stopping(em.block(em.num_layers - 1)))
            forward_on(em, cache, input_ids=ids, attention_mask=mask, position_ids=positions)
        if cache is None:
            return cls(layer, ids, mask, positions, (), found[layer].to(em.device), p)
        upper: list[Any] = list(cache.layers[layer + 1 : em.num_layers])
        prefix = tuple((c.keys[:, :, :p].contiguous(), c.values[:, :, :p].contiguous()) for c in upper)
        return cls(
            layer, ids[:, p:], mask, positions[:, p:], prefix, found[layer][:, p:].to(em.device).contiguous()
        )

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

    def run(self, em: EditableModel, hidden: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """The residual stream (n, d) after the last block at `row`, `column` (n,), counted from the
        cut, when it is `hidden` (b, s, d) after `layer`.

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
            stack.enter_context(ending_at(em, row, column))
            stack.enter_context(keeping(em.block(last), found, last))
            stack.enter_context(stopping(em.block(last)))
            forward_on(em, cache, input_ids=self.ids, attention_mask=self.mask, position_ids=self.positions)
        return found[last].to(em.device)[row, column]
