"""What settings may be: types, ranges, and texts that are read as layers, shares and thresholds. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from hubedit.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_KINDS: dict[type, str] = {
    str: "text in quotation marks",
    float: "a number",
    int: "a whole number",
    bool: "true or false",
    tuple: "a tuple",
}


def check_type(name: str, default: Any, value: Any) -> None:
    """Raises ConfigError for a value of another type than a setting's default; whole numbers are numbers. A
    tuple's items have the type of the default's first one."""
    own: type | tuple[type, ...] = (float, int) if isinstance(default, float) else type(default)
    if not isinstance(value, own) or isinstance(value, bool) != isinstance(default, bool):
        raise ConfigError(f"{name} must be {_KINDS[type(default)]}, and is {value!r}")
    if isinstance(value, tuple):
        for item in value:
            check_type(f"each of {name}", default[0], item)


def check_types(config: DataclassInstance) -> None:
    """Raises ConfigError for a setting of another type than its default, one that is none of the values that
    it may have, and for a number that is negative or not finite. `rank` may be -1. Nested settings have
    checked themselves."""
    hints = _hints(type(config))
    for part in fields(config):
        name, value = part.name, getattr(config, part.name)
        default = part.default if part.default_factory is MISSING else part.default_factory()
        if is_dataclass(default):
            if not isinstance(value, type(default)):
                raise ConfigError(f"{name} must be a {type(default).__name__}, and is {value!r}")
            continue
        check_type(name, default, value)
        if get_origin(hints[name]) is Literal and value not in get_args(hints[name]):
            raise ConfigError(f"unknown {name} {value!r}", f"one of: {', '.join(get_args(hints[name]))}")
        number = isinstance(value, (int, float))
        if number and not 0 <= value < float("inf") and (name, value) != ("rank", -1):
            raise ConfigError(f"{name.replace('_', ' ')} must not be negative or infinite, but is {value}")


@cache
def _hints(kind: type) -> Mapping[str, Any]:
    return get_type_hints(kind)


def layer_ranges(text: str) -> list[tuple[int, int]]:
    """First and last layer of every part of "4-8" or "4,6,8". Raises ConfigError on anything else."""
    ranges = []
    for part in text.replace(" ", "").split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if match is None:
            raise ConfigError(f"cannot read layers {text!r}", "write auto, 4-8 or 4,6,8")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ConfigError(f"layers {part} run backwards", f"write {last}-{first}")
        ranges.append((first, last))
    return ranges


def parse_alpha(text: str) -> float | None:
    """The share 0..1; None for "auto" and "per-layer", which leave it to the trace. Raises ConfigError for
    anything else."""
    if text in ("auto", "per-layer"):
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ConfigError(f"alpha {text!r} is not a share", "write auto, per-layer or a number from 0 to 1")
    return value


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
