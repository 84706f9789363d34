"""How records and messages call a model or a patch."""

from __future__ import annotations

import re


def short(name: str) -> str:
    """A repository's name, or the last part of a path: no folder of this machine gets into a record."""
    if name.count("/") == 1 and name[0] not in "./~" and "\\" not in name and ":" not in name:
        return name
    return re.split(r"[/\\]", name.rstrip("/\\"))[-1]


def last(name: str) -> str:
    """Two machines keep the same model under different paths, and the Hub under its owner's name."""
    return short(name).rpartition("/")[2]


def dimensions(shape: tuple[int, ...]) -> str:
    """A tensor's shape, "192 x 768"."""
    return " x ".join(map(str, shape)) or "a scalar"
