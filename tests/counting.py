"""Bytes of tensors that are alive while a block of code runs: the peak that a device would need."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Allocations(TorchDispatchMode):
    """Counts what torch's operations return, from when the block begins; also on the "meta" device, which
    holds no numbers. What a library allocates inside an operation (workspaces) is not seen.

    `live`: bytes that are alive now; `peak`: most that ever were.
    """

    def __init__(self) -> None:
        start: Any = super().__init__  # torch leaves it without types
        start()
        self.live = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        for given in tree_leaves((args, kwargs)):
            if isinstance(given, Tensor):  # what was there before the block
                self._see(given, count=False)
        out = func(*args, **(kwargs or {}))
        for made in tree_leaves(out):
            if isinstance(made, Tensor):
                self._see(made, count=True)
        return out

    def _see(self, tensor: Tensor, *, count: bool) -> None:
        if tensor.layout is not torch.strided:  # its indices and values are tensors of their own
            return
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes() if count else 0
        if key in self._known:
            return
        self._known.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


def matrix(width: int, dtype: torch.dtype = torch.float64) -> int:
    """Bytes of a square matrix."""
    return dtype.itemsize * width**2
