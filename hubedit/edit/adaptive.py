"""Batches that fit into memory: a budget of tokens that halves when the device runs out."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hubedit.edit.memory import out_of_memory
from hubedit.errors import HubEditError


class TokenBudget:
    """How many tokens (rows x longest row) one forward pass may hold."""

    def __init__(self, device: torch.device, tokens: int = 0) -> None:
        """`tokens` 0 picks a size for the device; it only ever shrinks."""
        self.tokens = tokens or (4096 if device.type == "cpu" else 16384)

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
            raise HubEditError(
                f"the device runs out of memory on one prompt of {longest} tokens",
                "use --dtype bfloat16, a smaller model, or --device cpu",
            ) from error
        self.tokens = max(1, min(self.tokens, rows * longest) // 2)
