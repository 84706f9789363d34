"""From a trace to the edited layers and the balance factor alpha. Pure.

    alpha = C_attn / (C_attn + C_mlp),   C_x = mean over the edited layers of max(IE_x[l], 0)

is the reading of the paper (arXiv 2510.27400) that docs/method.md explains.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from hubedit.config import EditConfig
from hubedit.errors import ConfigError

WINDOW = (1 / 8, 1 / 4)
"""Depth of the first and the last layer that the published methods edit, as shares of the model's depth:
MEMIT's layers 4 to 8 of 32."""

ENDS = (1 / 10, 2 / 10)
"""Depth of the two layers that the joint edit writes. Of the pairs that were tried on two real models it is
the best (docs/experiments.md); two layers with others between them are BLUE's finding too (arXiv
2502.03748)."""

MOST_TRACED = 0.9
"""No trace gives attention all: there are facts that it cannot bring alone (docs/experiments.md)."""


def parse_layers(text: str, num_layers: int) -> tuple[int, ...]:
    """Layers of "4-8" or "4,6,8", sorted. Raises ConfigError on anything else or outside the model."""
    layers: set[int] = set()
    for part in text.replace(" ", "").split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if match is None:
            raise ConfigError(f"cannot read layers {text!r}", "write auto, 4-8 or 4,6,8")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ConfigError(f"layers {part} run backwards", f"write {last}-{first}")
        if last >= num_layers:
            raise ConfigError(
                f"layer {last} is outside the model",
                f"it has layers 0 to {num_layers - 1}; --layers auto chooses",
            )
        layers |= set(range(first, last + 1))
    return tuple(sorted(layers))


def usual_layers(num_layers: int, joint: bool) -> tuple[int, ...]:
    """The two layers of `ENDS`, or all layers of `WINDOW`. After the last block but one no other token can
    read a change any more."""
    depths = ENDS if joint else WINDOW
    first, last = (max(0, min(round(depth * num_layers), num_layers - 2)) for depth in depths)
    if joint:
        return tuple(sorted({max(0, min(first, last - 1)), last}))
    return tuple(range(first, last + 1))


def parse_null_space(text: str) -> tuple[float, bool] | None:
    """(threshold, whether it is relative) of "0.02" or "1%"; None for "". Raises ConfigError otherwise."""
    if not text:
        return None
    number, percent, rest = text.strip().partition("%")
    try:
        value = float(number) / (100 if percent else 1)
    except ValueError:
        value = -1.0
    if rest or not 0 < value < (1 if percent else float("inf")):
        raise ConfigError(
            f"cannot read null space {text!r}",
            "write 0.02 for eigenvalues below 0.02, or 1% for those below 1 % of the largest",
        )
    return value, bool(percent)


def alphas(
    attention: Sequence[float], mlp: Sequence[float], layers: Sequence[int], setting: str
) -> dict[int, float]:
    """alpha of every edited layer: "auto" (one for all), "per-layer", both at most `MOST_TRACED`, or a number
    0..1.

    Raises ConfigError for anything else.
    """
    if setting == "per-layer":
        return {layer: _share([attention[layer]], [mlp[layer]]) for layer in layers}
    if setting == "auto":
        one = _share([attention[layer] for layer in layers], [mlp[layer] for layer in layers])
        return dict.fromkeys(layers, one)
    try:
        value = float(setting)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ConfigError(
            f"alpha {setting!r} is not a share", "write auto, per-layer or a number from 0 to 1"
        )
    return dict.fromkeys(layers, value)


def check_values(config: EditConfig) -> None:
    """Raises ConfigError for alpha, null space or layers that cannot be read. Whether a model has such layers
    is not known here."""
    check_alpha(config.alpha)
    parse_null_space(config.null_space)
    if config.layers != "auto":
        parse_layers(config.layers, num_layers=10**9)


def check_alpha(setting: str) -> None:
    """Raises ConfigError for a setting that `alphas` does not take."""
    alphas([0.0], [0.0], [0], setting)


def _share(attention: Sequence[float], mlp: Sequence[float]) -> float:
    a = sum(max(x, 0.0) for x in attention)
    m = sum(max(x, 0.0) for x in mlp)
    return min(a / (a + m), MOST_TRACED) if a + m > 0 else 0.0
