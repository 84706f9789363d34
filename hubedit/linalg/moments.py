"""Streaming second moments of a site's input."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_COLUMNS = 4096


@dataclass(frozen=True)
class Moments:
    """The uncentred second moment E[k k^T].

    `matrix`: (d, d) float32, symmetric, on the CPU; `count`: rows it averages over.
    """

    matrix: Tensor
    count: int


class SecondMoment:
    """Accumulates sum(x x^T) over batches; `finish()` gives the mean as frozen `Moments`.

    The sum is kept in float64 and the product of each batch is formed in float32, whatever the
    model's dtype: half-precision accumulation loses the small directions that the solve inverts.
    """

    def __init__(self, width: int, device: torch.device | str = "cpu") -> None:
        dtype = torch.float32 if torch.device(device).type == "mps" else torch.float64
        self._sum = torch.zeros(width, width, dtype=dtype, device=device)
        self._count = 0

    @property
    def count(self) -> int:
        """Rows seen so far."""
        return self._count

    def update(self, x: Tensor) -> None:
        """Adds the rows of x (..., width), which may be on another device than the sum."""
        rows = x.detach().reshape(-1, x.shape[-1])
        # in blocks, because a product of 18,944 x 18,944 beside the sum takes another 1.4 GB
        for at in range(0, rows.shape[1], _COLUMNS):
            part = slice(at, at + _COLUMNS)
            self._sum[:, part] += _product(rows, rows[:, part]).to(self._sum.device)
        self._count += rows.shape[0]

    def state(self) -> tuple[Tensor, int]:
        """(sum (width, width), count): what a resumed run continues from. The sum is live, not a copy."""
        return self._sum, self._count

    def restore(self, total: Tensor, count: int) -> None:
        """Continues from a state saved before, which is copied."""
        self._sum = total.to(self._sum, copy=True)
        self._count = count

    def finish(self) -> Moments:
        """The mean. Raises ValueError before any row was seen."""
        if self._count == 0:
            raise ValueError("no rows were accumulated")
        return mean_of(self._sum, self._count)


def mean_of(total: Tensor, count: int) -> Moments:
    """The mean of a sum over `count` rows; beside the sum it takes only what it returns."""
    mean = torch.empty_like(total, dtype=torch.float32)
    return Moments(torch.div(total, count, out=mean).cpu(), count)


def _product(rows: Tensor, part: Tensor) -> Tensor:
    """rows^T part in float32. Products of half-precision numbers are exact there, so tensor cores may form
    them from what is in half precision already, as long as the sums are float32."""
    if rows.is_cuda and rows.dtype in (torch.bfloat16, torch.float16):
        return torch.mm(rows.T, part, out_dtype=torch.float32)
    return rows.float().T @ part.float()
