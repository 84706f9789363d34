"""The last block, evaluated at the scored positions alone: no other token reads what it adds to the stream.

Keys and values of every position are needed there, but the projections behind attention and the MLP work on
one position at a time, and most positions of a prompt are never scored.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from hubedit.model.editable import EditableModel
from hubedit.model.hooks import before, behind, run
from hubedit.model.sites import Site
from hubedit.model.tokens import Batch


def final_at(em: EditableModel, batch: Batch, row: Tensor, column: Tensor) -> Tensor:
    """The residual stream after the last block at some positions, (s, d); `row`, `column`: (s,), all
    different. Gradients flow. An intervention of `replaced` in the last block would see these positions
    alone, as (1, s, d)."""
    last = em.num_layers - 1
    with ending_at(em, row, column):
        hidden = run(em, batch, hidden=[last]).hidden[last]
    return hidden[row, column]


@contextmanager
def ending_at(em: EditableModel, row: Tensor, column: Tensor) -> Iterator[None]:
    """Inside, the last block is right at these positions alone."""
    last = em.num_layers - 1
    with ExitStack() as stack:
        for module in (em.site(Site(last, "attention")), em.mlp(last)):
            place = _Positions(row, column)
            stack.enter_context(before(module, place.take))
            stack.enter_context(behind(module, place.put))
        yield


class _Positions:
    """Hooks of a module that works on every position by itself: it sees (1, s, d) in place of (b, t, d)."""

    def __init__(self, row: Tensor, column: Tensor) -> None:
        self.row, self.column = row, column
        self.shape: tuple[int, int] = (0, 0)

    def take(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        whole: Tensor = args[0]
        self.shape = (whole.shape[0], whole.shape[1])
        return (whole[self.row.to(whole.device), self.column.to(whole.device)][None], *args[1:])

    def put(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        whole = output.new_zeros(*self.shape, output.shape[-1])
        return whole.index_put_((self.row.to(whole.device), self.column.to(whole.device)), output[0])
