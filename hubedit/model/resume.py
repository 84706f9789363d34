"""Running only the upper part of a model, from a residual stream that is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from hubedit.model.editable import EditableModel
from hubedit.model.hooks import forward, keeping, starting_from, stopping_after
from hubedit.model.tokens import Batch


def resume(em: EditableModel, layer: int, hidden: Tensor, batch: Batch) -> Tensor:
    """The residual stream (b, t, d) after the last block, when it is `hidden` (b, t, d) after `layer`.

    Only the blocks above `layer` run. The model's own forward pass makes masks, positions and rotary
    tables, so the result is exact for every family, sliding windows included. Gradients flow to
    `hidden`. Composes with `replaced`. After the last layer it is `hidden` itself.
    """
    last = em.num_layers - 1
    if not 0 <= layer <= last:
        raise IndexError(f"layer {layer} of a model with {em.num_layers}")
    if layer == last:
        return hidden
    found: dict[Any, Tensor] = {}
    with ExitStack() as stack:
        for lower in range(layer + 1):
            stack.enter_context(skipped(em.block(lower), hidden))
        stack.enter_context(starting_from(em.block(layer + 1), hidden))
        stack.enter_context(keeping(em.block(last), found, last))
        stack.enter_context(stopping_after(em.block(last)))
        forward(em, batch)
    return found[last].to(em.device)


@contextmanager
def skipped(block: nn.Module, stand_in: Tensor) -> Iterator[None]:
    """The block computes nothing.

    What it returns is never read: the first upper block's input is replaced. It only has to survive
    `output[0]`, which the families whose blocks return a tuple apply to it.
    """
    own: Callable[..., Any] | None = block.__dict__.get("forward")
    block.forward = lambda *args, **kwargs: stand_in
    try:
        yield
    finally:
        if own is None:
            del block.__dict__["forward"]
        else:
            block.forward = own
