"""Batches that fit into memory: smaller ones when the device runs out, and nothing done is lost."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import torch

from hubedit.errors import HubEditError

if TYPE_CHECKING:
    from hubedit.model.editable import EditableModel

Part = TypeVar("Part")

_MESSAGES = (
    "out of memory",  # CUDA, MPS ("MPS backend out of memory"), XPU
    "can't allocate memory",  # the CPU's allocator
    "not enough memory",  # the same on Windows
    "alloc_failed",  # cuBLAS and cuDNN workspaces
)
_HINT = "use --dtype bfloat16, a smaller model, or --device cpu"


def out_of_memory(error: BaseException) -> bool:
    """Whether an error is an allocation failure of a GPU or the CPU."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(m in str(error).lower() for m in _MESSAGES)


def release(device: torch.device) -> None:
    """Gives cached blocks back to the device, and on a CPU freed memory to the system: what stages leave in
    pieces would add up. Call it outside the `except` block of an error: while that runs, the traceback holds
    on to the tensors."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
    elif (trim := _malloc_trim()) is not None:
        trim(0)


def _malloc_trim() -> Callable[[int], int] | None:
    """glibc's function of that name; None with another C library."""
    if sys.platform != "linux":
        return None
    try:
        found = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None
    found.argtypes = [ctypes.c_size_t]
    return cast("Callable[[int], int]", found)


def forget_peak(device: torch.device) -> None:
    """Peak memory is counted from now on: of a GPU, and on Linux of this process."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):  # no such file elsewhere, and a sandbox may forbid it
        Path("/proc/self/clear_refs").write_text("5")


def free_memory(device: torch.device) -> int:
    """Bytes that this process may still take on the device; 2**62 where it is not known (CPU, MPS)."""
    if device.type != "cuda":
        return 2**62
    free, total = torch.cuda.mem_get_info(device)
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    share = torch.cuda.get_per_process_memory_fraction(device)
    left = int(share * total) - torch.cuda.memory_allocated(device)
    return max(0, min(int(free) + cached, left))


CPU_PASS = 2048
"""Padded tokens in one pass on a CPU: a larger one is no faster there, and a smaller one holds rows of more
nearly one length (docs/experiments.md)."""

LOGITS = 2**25
"""Numbers of logits that are there at once, of which a softmax or a comparison makes several copies: 134 MB
each in float32."""


def positions(em: EditableModel) -> int:
    """At how many positions predictions may be computed at once: a large vocabulary makes logits, not
    activations, what fills the memory."""
    return max(1, LOGITS // em.vocabulary)


def pass_size(em: EditableModel, most: int, cpu: int = CPU_PASS) -> int:
    """Padded tokens in a pass: `most`, or at most `cpu` on a CPU that holds the whole model in memory."""
    # weights that lie elsewhere are read again for every pass
    offloaded = getattr(em.model, "hf_device_map", None) is not None
    return min(most, cpu) if em.device.type == "cpu" and not offloaded else most


class TokenBudget:
    """How many tokens (rows x longest row) one forward pass may hold."""

    def __init__(self, device: torch.device, tokens: int = 0) -> None:
        """`tokens` 0 picks a size for the device; it only ever shrinks."""
        self.tokens = tokens or (4096 if device.type == "cpu" else 8192)

    def take(self, lengths: Sequence[int], start: int) -> int:
        """End of the batch that begins at row `start`; at least one row."""
        end, longest = start, 0
        while end < len(lengths):
            longest = max(longest, lengths[end])
            if end > start and longest * (end - start + 1) > self.tokens:
                break
            end += 1
        return end

    def shrink(self, error: BaseException, rows: int, longest: int) -> None:
        """Halves after `error` in a batch of `rows` rows; raises what cannot be mended so.

        Raises the error itself when it is not about memory, HubEditError when one row does not fit.
        """
        if not out_of_memory(error):
            raise error
        if rows <= 1:
            message = f"the device runs out of memory on one prompt of {longest} tokens"
            raise HubEditError(message, _HINT) from error
        self.tokens = max(1, min(self.tokens, rows * longest) // 2)


def fitting(
    items: Sequence[Part],
    split: Callable[[Sequence[Part], int], Sequence[list[Part]]],
    work: Callable[[list[Part]], None],
    tokens: int,
    device: torch.device,
) -> None:
    """Calls `work` on every part of `split(items, tokens)`; what does not fit is split smaller.

    `split(items, budget)` must cut into parts of at most `budget` tokens, in a stable order; a part that
    cannot be cut further may exceed it. `work` must leave nothing behind when it raises. Raises HubEditError
    when a part that cannot be cut further does not fit.
    """
    queue, budget = list(split(items, tokens)), tokens
    while queue:
        part, fits = queue[0], True
        try:
            work(part)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            if len(split(part, 1)) == 1:
                message = "the device runs out of memory even on one fact at a time"
                raise HubEditError(message, _HINT) from error
            fits = False
        if fits:
            queue.pop(0)
            continue
        release(device)
        left = [item for waiting in queue for item in waiting]
        while budget > 1 and len(queue[0]) == len(part):
            budget = max(1, budget // 2)
            queue = list(split(left, budget))
