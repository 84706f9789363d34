"""What goes through a model, watched and disturbed by torch's own hooks: nothing of hubedit is replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from hubedit.model.editable import EditableModel
from hubedit.model.sites import Site


@contextmanager
def passes(em: EditableModel, seen: Callable[[Tensor], object], layer: int = 0) -> Iterator[None]:
    """`seen` gets what the layer's MLP projection reads, (rows, tokens, d_in), before each pass through it;
    what it raises, the pass raises."""

    def hook(_: object, args: tuple[Any, ...]) -> None:
        seen(args[0])

    handle = em.site(Site(layer, "mlp")).register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def little_memory(
    em: EditableModel,
    *,
    tokens: int = 2**30,
    rows: int = 2**30,
    layer: int = 0,
    error: Exception | None = None,
) -> Iterator[list[int]]:
    """Every pass through the layer of more than so many rows or padded tokens raises `error` (None: that
    memory ran out). Gives the padded tokens of all passes that were tried."""
    tried: list[int] = []

    def seen(x: Tensor) -> None:
        tried.append(x.shape[0] * x.shape[1])
        if tried[-1] > tokens or len(x) > rows:
            raise error or torch.OutOfMemoryError("CUDA out of memory")

    with passes(em, seen, layer):
        yield tried


@contextmanager
def no_pass(em: EditableModel) -> Iterator[None]:
    """Nothing may go through the model."""
    with little_memory(em, tokens=0, error=AssertionError("the model computes")):
        yield


@contextmanager
def predictions(em: EditableModel, changed: Callable[[Tensor], object]) -> Iterator[None]:
    """`changed` gets the logits of every pass, and may change them in place."""

    def hook(_: object, args: object, logits: Tensor) -> None:
        changed(logits)

    handle = em.head().register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
