"""How `delta` moves: two rules, for all facts of a batch at once."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from hubedit.config import TargetConfig

MOMENTUM = 0.9
"""Of the gradient's direction (steepest) and of the gradient (Adam, beta_1)."""
SQUARES = 0.999
"""Adam's beta_2."""
LAST_STEP = 0.1
"""What the length of the steps along the gradient falls towards, along a cosine, as a share of the first
one's; the last of n steps is at 1 - 1/n of the way."""
CONSTANTS = {"momentum": MOMENTUM, "squares": SQUARES, "last_step": LAST_STEP}
"""What the result depends on beside the configuration, for the keys of caches."""


class Rule(Protocol):
    """Moves u (n, d), with delta = u * `unit` (n, 1).

    `moves`: how often; `published`: as in the code of ROME's and MEMIT's authors the last point is the
    result, looked at once more, and not the best one on the way; what is preserved counts by
    KL(edited || original) and not KL(original || edited); and lengths are relative to the bare prompt's and
    not to the mean of all edit rows.
    """

    unit: Tensor
    moves: int
    published: bool

    def decay(self, size: Tensor) -> Tensor:
        """The objective's last term (n,), from |delta| (n,)."""

    def move(self, u: Tensor, grad: Tensor, step: int) -> Tensor:
        """The next u, from the objective's gradient in u; within the clamp."""


class Steepest:
    """Steps of a given length relative to |h|, along the gradient's direction with momentum; the length
    falls along a cosine towards a tenth: of two steps the second has 0.55."""

    published = False

    def __init__(self, config: TargetConfig, norm: Tensor, width: int) -> None:
        self.config, self.norm, self.root = config, norm, math.sqrt(width)
        self.unit = (norm / self.root)[:, None]
        self.moves = config.steps
        self.velocity: Tensor | None = None

    def decay(self, size: Tensor) -> Tensor:
        return self.config.decay * size / self.norm

    def move(self, u: Tensor, grad: Tensor, step: int) -> Tensor:
        config = self.config
        if self.velocity is None:
            self.velocity = torch.zeros_like(u)
        fall = (1 + math.cos(math.pi * step / config.steps)) / 2
        rate: float = config.step * (LAST_STEP + (1 - LAST_STEP) * fall)
        along = grad / grad.norm(dim=1, keepdim=True).clamp_min(1e-12)
        self.velocity.mul_(MOMENTUM).add_(along, alpha=1 - MOMENTUM)
        corrected: Tensor = self.velocity / (1 - MOMENTUM ** (step + 1)) * self.root
        u = u - rate * corrected
        bound = config.clamp * self.root
        shrunk: Tensor = u * (bound / u.norm(dim=1).clamp_min(bound))[:, None]
        return shrunk


class Adam:
    """The recipe of ROME's and MEMIT's authors (compute_v, compute_z): Adam (Kingma and Ba 2015) on delta
    with `step` as the absolute learning rate, decay * |delta| / |h|^2, delta scaled back to the clamp after
    each move, KL(edited || original). Their loop looks at the objective `steps` times and moves in between.
    """

    published = True

    def __init__(self, config: TargetConfig, norm: Tensor, width: int) -> None:
        self.config, self.norm = config, norm
        self.unit = torch.ones_like(norm)[:, None]
        self.moves = max(config.steps - 1, 0)
        self.first: Tensor | None = None
        self.second: Tensor | None = None

    def decay(self, size: Tensor) -> Tensor:
        return self.config.decay * size / self.norm.square()

    def move(self, u: Tensor, grad: Tensor, step: int) -> Tensor:
        if self.first is None or self.second is None:
            self.first, self.second = torch.zeros_like(u), torch.zeros_like(u)
        self.first.mul_(MOMENTUM).add_(grad, alpha=1 - MOMENTUM)
        self.second.mul_(SQUARES).addcmul_(grad, grad, value=1 - SQUARES)
        mean = self.first / (1 - MOMENTUM ** (step + 1))
        spread = (self.second / (1 - SQUARES ** (step + 1))).sqrt()
        u = u - self.config.step * mean / (spread + 1e-8)
        bound = self.config.clamp * self.norm
        size = u.norm(dim=1)
        return u * (bound / torch.maximum(size, bound))[:, None]


RULES: dict[str, type[Steepest] | type[Adam]] = {"steepest": Steepest, "adam": Adam}
"""By `TargetConfig.optimizer`; made of the configuration, |x| (n,) of what delta is added to, and d."""
