"""The layers that are edited where no trace chooses: given, or at shares of the model's depth. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hubedit.config import EditConfig, check_types, parse_null_space
from hubedit.edit.locate.alpha import check_alpha
from hubedit.errors import ConfigError
from hubedit.presets import METHODS


def untraced_layers(config: EditConfig, num_layers: int) -> tuple[int, ...]:
    """The edited layers; none where the trace chooses them. Raises ConfigError like `parse_layers`."""
    method = METHODS[config.method]
    if config.layers != "auto":
        return parse_layers(config.layers, num_layers)
    if method.depth:
        return (method.own_layer(num_layers),)
    return () if method.one_layer else default_layers(num_layers, config)


def default_layers(num_layers: int, config: EditConfig) -> tuple[int, ...]:
    """All layers from the first to the last of `config.depths`, or `config.most_layers` of them: the joint
    edit's from the one that holds that depth on, a published method's from the nearest. After the last block
    but one no other token can read a change any more."""
    whole = round if METHODS[config.method].published else int
    depths = (whole(config.depths[0] * num_layers), round(config.depths[1] * num_layers))
    first, last = (max(0, min(depth, num_layers - 2)) for depth in depths)
    most = config.most_layers
    if most == 0 or last - first < most:
        return tuple(range(first, last + 1))
    return tuple(round(first + n * (last - first) / max(most - 1, 1)) for n in range(most))


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


def check_one_layer(config: EditConfig, layers: Sequence[int]) -> None:
    """Raises ConfigError where a method of one layer is given several."""
    if METHODS[config.method].one_layer and len(layers) != 1:
        raise ConfigError(
            f"{config.method} edits one layer, and --layers gives {len(layers)}",
            f"give one, such as --layers {layers[0]}, or leave it out",
        )


def check_values(config: EditConfig) -> None:
    """Raises ConfigError for settings of a wrong type, and for alpha, null space or layers that cannot be
    read. Whether a model has such layers is not known here."""
    check_types(config)
    check_alpha(config.alpha)
    parse_null_space(config.null_space)
    if config.layers != "auto":
        parse_layers(config.layers, num_layers=10**9)
