"""What is tuned: which layers, attention's share, how large a change may be, and what is preserved how
firmly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from hubedit.config import EditConfig
from hubedit.edit.locate.layers import default_layers
from hubedit.edit.result import Edit

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

REACH = 3
"""Layers before and behind the usual last one that are tried as the last."""
WIDTH = 5
ALPHA, ALPHA_STEP = 0.6, 0.05
"""Above it the paper's curve collapses (tables 1 and 2 of its supplement)."""
CLAMP, LAM = (0.05, 1.0), (1.0, 300.0)
KL = (-6, 2)
"""Powers of two."""


@dataclass(frozen=True)
class Point:
    """`last`, `width`: the edited layers are `last` and the `width` below it;
    `clamp`, `lam`: as in the configuration;
    `kl`: an exponent of two."""

    last: int
    width: int
    alpha: float
    clamp: float
    lam: float
    kl: int

    @property
    def layers(self) -> str:
        """As in EditConfig."""
        first = max(0, self.last - self.width)
        return f"{first}-{self.last}" if first < self.last else str(self.last)

    def settings(self) -> dict[str, Any]:
        """The fields of EditConfig that it fixes, as JSON data."""
        targets = {"clamp": float(f"{self.clamp:.3g}"), "kl": 2.0**self.kl}
        own = {"layers": self.layers, "alpha": f"{self.alpha:g}", "lam": float(f"{self.lam:.3g}")}
        return {**own, "targets": targets}

    def config(self, base: EditConfig) -> EditConfig:
        """`base` with these settings."""
        own = self.settings()
        return replace(base, **{**own, "targets": replace(base.targets, **own["targets"])})


@dataclass(frozen=True)
class Space:
    """`first`, `final`: the layers among which the last edited one is looked for."""

    first: int
    final: int

    @classmethod
    def of(cls, num_layers: int) -> Space:
        """Around the usual last layer of a model."""
        last = default_layers(num_layers, EditConfig())[-1]
        return cls(max(0, last - REACH), max(0, min(last + REACH, num_layers - 2)))

    def layers(self) -> tuple[int, ...]:
        """Every layer that a point may edit."""
        return tuple(range(max(0, self.first - WIDTH), self.final + 1))

    def distributions(self) -> dict[str, BaseDistribution]:
        """By field of Point, for Optuna."""
        from optuna.distributions import FloatDistribution, IntDistribution

        return {
            "last": IntDistribution(self.first, self.final),
            "width": IntDistribution(0, WIDTH),
            "alpha": FloatDistribution(0.0, ALPHA, step=ALPHA_STEP),
            "clamp": FloatDistribution(*CLAMP, log=True),
            "lam": FloatDistribution(*LAM, log=True),
            "kl": IntDistribution(*KL),
        }

    def point(self, parameters: Mapping[str, Any]) -> Point:
        """A trial's parameters as a point."""
        return Point(**{name: parameters[name] for name in self.distributions()})

    def starts(self, edit: Edit, config: EditConfig) -> list[dict[str, Any]]:
        """Parameters that the trials begin with: the default's with one thing changed in each. A few trials
        find more there than anywhere at random."""
        from math import log2

        last = min(max(edit.layers[-1], self.first), self.final)
        kl = round(log2(config.targets.kl)) if config.targets.kl > 0 else KL[0]
        near = Point(
            last,
            min(edit.layers[-1] - edit.layers[0], WIDTH),
            min(round(round(max(edit.alpha.values(), default=0.0) / ALPHA_STEP) * ALPHA_STEP, 10), ALPHA),
            min(max(config.targets.clamp, CLAMP[0]), CLAMP[1]),
            min(max(config.lam, LAM[0]), LAM[1]),
            min(max(kl, KL[0]), KL[1]),
        )
        changed = [
            replace(near, clamp=min(near.clamp * 1.6, CLAMP[1])),
            replace(near, clamp=max(near.clamp / 1.6, CLAMP[0])),
            replace(near, last=near.last + 1 if near.last < self.final else max(near.last - 1, self.first)),
            replace(near, width=near.width - 1 if near.width > 0 else 1),
            replace(near, alpha=0.2 if near.alpha == 0 else 0.0),
            replace(near, kl=min(near.kl + 2, KL[1])),
        ]
        unchanged = near.config(config)
        return [asdict(point) for point in dict.fromkeys(changed) if point.config(config) != unchanged]
