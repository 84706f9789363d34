"""Mean and standard deviation of a stream of rows, coordinate by coordinate."""

from __future__ import annotations

import torch
from torch import Tensor

_TINY = torch.finfo(torch.float32).eps


class RunningScale:
    """What `update` has seen so far: `count` rows, their `mean` (d,), and the sum of their squared deviations
    from it, `square` (d,). float64. Parts are merged exactly (Chan, Golub and LeVeque 1983)."""

    def __init__(self, width: int, device: torch.device | str = "cpu") -> None:
        self.count = 0
        self.mean = torch.zeros(width, dtype=torch.float64, device=device)
        self.square = torch.zeros_like(self.mean)

    def update(self, rows: Tensor) -> None:
        """Adds rows (n, d)."""
        x = rows.to(self.mean)
        own = x.mean(0)
        delta, total = own - self.mean, self.count + len(x)
        self.square += (x - own).square().sum(0) + delta.square() * (self.count * len(x) / total)
        self.mean += delta * (len(x) / total)
        self.count = total

    def normalise(self, rows: Tensor) -> Tensor:
        """Rows (n, d) with mean 0 and deviation 1 over all that was seen; a constant coordinate becomes 0."""
        deviation = (self.square / max(self.count - 1, 1)).sqrt()
        return (rows.to(self.mean) - self.mean) / (deviation + _TINY)
