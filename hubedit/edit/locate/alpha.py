"""From a causal trace to alpha, attention's share of an edit. Pure.

    alpha = C_attn / (C_attn + C_mlp),   C_x = mean over the edited layers of max(IE_x[l], 0)

is the reading of the paper (IntAttn-Edit, arXiv 2510.27400) that docs/method.md explains.
"""

from __future__ import annotations

from collections.abc import Sequence

from hubedit.values import parse_alpha

MOST_TRACED = 0.9
"""No trace gives attention all: there are facts that it cannot bring alone (docs/experiments.md)."""


def alphas(
    attention: Sequence[float], mlp: Sequence[float], layers: Sequence[int], setting: str
) -> dict[int, float]:
    """alpha of every edited layer: "auto" (one for all), "per-layer", both at most `MOST_TRACED`, or a number
    0..1. `attention`, `mlp`: indirect effects of every layer of the model.

    Raises ConfigError for anything else.
    """
    if setting == "per-layer":
        return {layer: _share([attention[layer]], [mlp[layer]]) for layer in layers}
    given = parse_alpha(setting)
    if given is None:
        given = _share([attention[layer] for layer in layers], [mlp[layer] for layer in layers])
    return dict.fromkeys(layers, given)


def _share(attention: Sequence[float], mlp: Sequence[float]) -> float:
    a = sum(max(x, 0.0) for x in attention)
    m = sum(max(x, 0.0) for x in mlp)
    return min(a / (a + m), MOST_TRACED) if a + m > 0 else 0.0
