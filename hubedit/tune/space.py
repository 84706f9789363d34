"""What is tuned: where is edited, how much each site may change, and how firmly other beliefs are held."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from hubedit.config import EditConfig
from hubedit.edit.balance import MOST_LAYERS, parse_layers
from hubedit.edit.result import Edit

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

ALPHA, ALPHA_STEP = 0.6, 0.05
"""Above it the paper's curve and ours collapse (docs/experiments.md)."""
DRIFT_MLP, DRIFT_ATTENTION = (0.01, 0.8), (0.001, 0.05)
KL = (-4, 2)
"""Powers of two: a few values, so that targets are found in the cache."""
ESSENCE = (4, 16, 4)


@dataclass(frozen=True)
class Point:
    """`last`, `width`: the edited layers end at `last`, and are `width`; `kl`: the exponent of two."""

    last: int
    width: int
    alpha: float
    drift_mlp: float
    drift_attention: float
    kl: int
    essence: int

    @property
    def layers(self) -> str:
        """As in EditConfig."""
        first = max(0, self.last - self.width + 1)
        return str(self.last) if first == self.last else f"{first}-{self.last}"

    def settings(self) -> dict[str, Any]:
        """The fields of EditConfig that it fixes, as JSON data."""
        own: dict[str, Any] = {"layers": self.layers, "alpha": f"{self.alpha:g}", "search": False}
        own["drift_mlp"] = float(f"{self.drift_mlp:.3g}")
        if self.alpha > 0:
            own["drift_attention"] = float(f"{self.drift_attention:.3g}")
        return {**own, "targets": {"kl": 2.0**self.kl, "essence": self.essence}}

    def config(self, base: EditConfig) -> EditConfig:
        """`base` with these settings."""
        own = self.settings()
        return replace(base, **{**own, "targets": replace(base.targets, **own["targets"])})


@dataclass(frozen=True)
class Space:
    """`first`, `final`: the layers among which the last edited one is looked for."""

    first: int
    final: int

    def distributions(self) -> dict[str, BaseDistribution]:
        """By field of Point, for Optuna."""
        from optuna.distributions import FloatDistribution, IntDistribution

        return {
            "last": IntDistribution(self.first, self.final),
            "width": IntDistribution(1, min(MOST_LAYERS, self.final + 1)),
            "alpha": FloatDistribution(0.0, ALPHA, step=ALPHA_STEP),
            "drift_mlp": FloatDistribution(*DRIFT_MLP, log=True),
            "drift_attention": FloatDistribution(*DRIFT_ATTENTION, log=True),
            "kl": IntDistribution(*KL),
            "essence": IntDistribution(ESSENCE[0], ESSENCE[1], step=ESSENCE[2]),
        }

    def point(self, parameters: Mapping[str, Any]) -> Point:
        """A trial's parameters as a point."""
        return Point(**{name: parameters[name] for name in self.distributions()})

    def of_edit(self, edit: Edit, config: EditConfig) -> dict[str, Any]:
        """The nearest parameters to what an edit with `search` came to: where the trials begin."""
        from math import log2

        budget = edit.found.trial.budget if edit.found is not None else None
        mlp = budget.mlp if budget is not None else config.drift_mlp
        attention = budget.attention if budget is not None and budget.attention else config.drift_attention
        alpha = max(edit.alpha.values(), default=0.0)
        return asdict(
            Point(
                min(max(edit.layers[-1], self.first), self.final),
                min(len(edit.layers), MOST_LAYERS, self.final + 1),
                min(round(round(alpha / ALPHA_STEP) * ALPHA_STEP, 10), ALPHA),
                min(max(mlp, DRIFT_MLP[0]), DRIFT_MLP[1]),
                min(max(attention, DRIFT_ATTENTION[0]), DRIFT_ATTENTION[1]),
                min(max(round(log2(config.targets.kl)) if config.targets.kl > 0 else KL[0], KL[0]), KL[1]),
                min(max(config.targets.essence // ESSENCE[2] * ESSENCE[2], ESSENCE[0]), ESSENCE[1]),
            )
        )


def all_layers(points: Space) -> tuple[int, ...]:
    """Every layer that a point may edit."""
    return parse_layers(f"{max(0, points.first - MOST_LAYERS + 1)}-{points.final}", points.final + 1)
