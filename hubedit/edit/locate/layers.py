"""The layers that are edited where no trace chooses: given, or at shares of the model's depth. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from hubedit.config import EditConfig
from hubedit.errors import ConfigError
from hubedit.presets import METHODS
from hubedit.values import layer_ranges


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
    for first, last in layer_ranges(text):
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
