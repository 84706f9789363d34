"""Batches that adapt to memory: halve on out-of-memory, never lose what is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from hubedit.errors import HubEditError

Part = TypeVar("Part")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error is an allocation failure of a GPU or the CPU."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def fitting(
    split: Callable[[int], Sequence[list[Part]]],
    work: Callable[[list[Part]], None],
    tokens: int,
    device: torch.device,
) -> None:
    """Calls `work` on every part of `split(tokens)`; a part that does not fit is split smaller.

    `split(budget)` must cut the same items into parts of at most `budget` tokens, in a stable order.
    Raises HubEditError when even the smallest part does not fit.
    """
    queue = [list(part) for part in split(tokens)]
    done: list[Part] = []
    budget = tokens
    while queue:
        part = queue[0]
        try:
            work(part)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            budget //= 2
            if device.type == "cuda":
                torch.cuda.empty_cache()
            if budget < 16:
                raise HubEditError(
                    "out of memory even for one fact at a time", "use a smaller --dtype or another --device"
                ) from error
            finished = {id(item) for item in done}
            queue = [
                rest for p in split(budget) if (rest := [item for item in p if id(item) not in finished])
            ]
            continue
        done.extend(part)
        queue.pop(0)
