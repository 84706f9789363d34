"""What is tuned: where is edited, how much each site may change, how firmly other beliefs are held, and for
how long the result is polished."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from hubedit.config import EditConfig
from hubedit.edit.balance import MOST_LAYERS, parse_layers
from hubedit.edit.result import Edit

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Number = TypeVar("Number", int, float)

ALPHA, ALPHA_STEP = 0.6, 0.05
"""Above it the paper's curve and ours collapse (docs/experiments.md)."""
DRIFT_MLP, DRIFT_ATTENTION = (0.01, 0.8), (0.001, 0.05)
KL = (-4, 2)
"""Powers of two: a few values, so that targets are found in the cache."""
ESSENCE = (4, 16, 4)
POLISH = (-1, 1)
"""Powers of two, by which the usual number of steps is multiplied."""


@dataclass(frozen=True)
class Point:
    """`last`, `width`: the edited layers end at `last`, and are `width`; `search`: every edit looks for its
    drift budgets, and those here count for nothing; `kl`, `polish`: exponents of two."""

    last: int
    width: int
    alpha: float
    search: bool
    drift_mlp: float
    drift_attention: float
    kl: int
    essence: int
    polish: int

    @property
    def layers(self) -> str:
        """As in EditConfig."""
        first = max(0, self.last - self.width + 1)
        return str(self.last) if first == self.last else f"{first}-{self.last}"

    def settings(self, base: EditConfig) -> dict[str, Any]:
        """The fields of EditConfig that it fixes, as JSON data; `polish` multiplies the steps of `base`."""
        own: dict[str, Any] = {"layers": self.layers, "alpha": f"{self.alpha:g}", "search": self.search}
        if not self.search:
            own["drift_mlp"] = float(f"{self.drift_mlp:.3g}")
            if self.alpha > 0:
                own["drift_attention"] = float(f"{self.drift_attention:.3g}")
        own["polish"] = round(base.polish * 2.0**self.polish)
        return {**own, "targets": {"kl": 2.0**self.kl, "essence": self.essence}}

    def config(self, base: EditConfig) -> EditConfig:
        """`base` with these settings."""
        own = self.settings(base)
        return replace(base, **{**own, "targets": replace(base.targets, **own["targets"])})


@dataclass(frozen=True)
class Space:
    """`first`, `final`: the layers among which the last edited one is looked for."""

    first: int
    final: int

    def distributions(self) -> dict[str, BaseDistribution]:
        """By field of Point, for Optuna."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        return {
            "last": IntDistribution(self.first, self.final),
            "width": IntDistribution(1, min(MOST_LAYERS, self.final + 1)),
            "alpha": FloatDistribution(0.0, ALPHA, step=ALPHA_STEP),
            "search": CategoricalDistribution((True, False)),
            "drift_mlp": FloatDistribution(*DRIFT_MLP, log=True),
            "drift_attention": FloatDistribution(*DRIFT_ATTENTION, log=True),
            "kl": IntDistribution(*KL),
            "essence": IntDistribution(ESSENCE[0], ESSENCE[1], step=ESSENCE[2]),
            "polish": IntDistribution(*POLISH),
        }

    def point(self, parameters: Mapping[str, Any]) -> Point:
        """A trial's parameters as a point."""
        return Point(**{name: parameters[name] for name in self.distributions()})

    def starts(self, edit: Edit, config: EditConfig) -> list[dict[str, Any]]:
        """Parameters that the trials begin with: the layers and the share that an edit with `search` came to,
        and one more thing changed in each. A few trials find more there than anywhere at random."""
        from math import log2

        budget = edit.found.trial.budget if edit.found is not None else None
        mlp = budget.mlp if budget is not None else config.drift_mlp
        attention = budget.attention if budget is not None and budget.attention else config.drift_attention
        alpha = max(edit.alpha.values(), default=0.0)
        widest = min(MOST_LAYERS, self.final + 1)
        # a share that rounds to nothing would leave attention out
        share = max(round(round(alpha / ALPHA_STEP) * ALPHA_STEP, 10), ALPHA_STEP if alpha > 0 else 0.0)
        near = Point(
            last=_within(edit.layers[-1], self.first, self.final),
            width=min(len(edit.layers), widest),
            alpha=min(share, ALPHA),
            search=True,
            drift_mlp=_within(mlp, *DRIFT_MLP),
            drift_attention=_within(attention, *DRIFT_ATTENTION),
            kl=_within(round(log2(config.targets.kl)) if config.targets.kl > 0 else KL[0], *KL),
            essence=_within(config.targets.essence // ESSENCE[2] * ESSENCE[2], *ESSENCE[:2]),
            polish=0,
        )
        changed = [
            replace(near, polish=POLISH[1]),
            replace(near, essence=ESSENCE[1]),
            replace(near, kl=_within(near.kl + 2, *KL)),
            replace(near, search=False),
            replace(near, last=near.last + 1 if near.last < self.final else max(near.last - 1, self.first)),
            replace(near, width=near.width + 1 if near.width < widest else max(near.width - 1, 1)),
        ]
        unchanged = near.config(config)
        return [asdict(point) for point in dict.fromkeys(changed) if point.config(config) != unchanged]


def _within(value: Number, least: Number, most: Number) -> Number:
    return min(max(value, least), most)


def all_layers(points: Space) -> tuple[int, ...]:
    """Every layer that a point may edit."""
    return parse_layers(f"{max(0, points.first - MOST_LAYERS + 1)}-{points.final}", points.final + 1)
