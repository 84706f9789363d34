"""Which modules an adapter's configuration names, by PEFT's own rules, without a model.

Follows `check_target_module_exists` and `get_pattern_key` of peft 0.21.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hubedit.errors import PatchError

_HINT = "correct adapter_config.json"
_ALL_LINEAR = "all-linear"
# "all-linear" leaves out the model's head; these are the names of heads
_HEADS = ("lm_head", "embed_out", "output", "score", "classifier")


@dataclass(frozen=True)
class Targets:
    """`modules`, `excluded`: names or paths ended by one, or one regular expression for the whole path;
    `layers`: only those indices, where any are given, counted behind one of `before`."""

    modules: tuple[str, ...] | re.Pattern[str] | None
    excluded: tuple[str, ...] | re.Pattern[str]
    layers: frozenset[int] | None
    before: tuple[re.Pattern[str], ...]

    @classmethod
    def of(cls, where: Path, config: Mapping[str, Any]) -> Targets:
        """From adapter_config.json. Raises PatchError for values of another kind."""
        wanted = config.get("target_modules")
        modules: tuple[str, ...] | re.Pattern[str] | None
        if isinstance(wanted, str) and wanted.lower() == _ALL_LINEAR:
            modules = None
        else:
            modules = _names(where, "target_modules", wanted)
            if modules == ():
                raise PatchError(f"{where}: target_modules names no modules", _HINT)
        layers = config.get("layers_to_transform")
        numbers = [layers] if isinstance(layers, int) else layers or []
        if not isinstance(numbers, list) or not all(type(n) is int for n in numbers):
            raise PatchError(f"{where}: layers_to_transform is {layers!r}, not layer indices", _HINT)
        before = config.get("layers_pattern")
        words = [before] if isinstance(before, str) and before else before or []
        if not isinstance(words, list) or not all(isinstance(w, str) for w in words):
            raise PatchError(f"{where}: layers_pattern is {before!r}, not text", _HINT)
        index = r"\.(?P<idx>\d{1,9})\."
        forms = [rf"(?:^|.*?\.){word}{index}" for word in words] or [rf".*?\.[^.]*{index}"]
        return cls(
            modules,
            _names(where, "exclude_modules", config.get("exclude_modules") or []),
            # PEFT reads layer indices only beside a list
            frozenset(numbers) if numbers and isinstance(modules, tuple) else None,
            tuple(_compile(where, "layers_pattern", form) for form in forms),
        )

    def own(self, module: str) -> bool:
        """Whether a loader would give this module an adapter."""
        if _named(self.excluded, module):
            return False
        if self.modules is None:
            return module.rpartition(".")[2] not in _HEADS
        return _named(self.modules, module) and self._layer(module)

    def idle(self, owners: Iterable[str]) -> Iterator[str]:
        """What the configuration names and no module with tensors, `owners`, answers to: loaders leave such
        modules as they are, at most with a warning about missing tensors."""
        owners = list(owners)
        for name in self.modules if isinstance(self.modules, tuple) else ():
            if not any(_named((name,), module) for module in owners):
                yield f"target_modules names {name!r}, but there are no tensors for it"
        for layer in sorted(self.layers or ()):
            if not any(self._index(module) == layer for module in owners):
                yield f"layers_to_transform names layer {layer}, but there are no tensors for it"

    def _index(self, module: str) -> int | None:
        found = next((m for m in (p.match(module) for p in self.before) if m), None)
        return int(found["idx"]) if found else None

    def _layer(self, module: str) -> bool:
        return self.layers is None or self._index(module) in self.layers


def text_patterns(where: Path, key: str, patterns: Any) -> dict[re.Pattern[str], tuple[str, Any]]:
    """rank_pattern or alpha_pattern: each key compiled, to match the end of a module's path -> the key as it
    is written, and its value."""
    if patterns is None:
        return {}
    if not isinstance(patterns, dict):
        raise PatchError(f"{where}: {key} is {type(patterns).__name__}, not an object", _HINT)
    return {_compile(where, key, rf"(.*\.)?({text})$"): (text, value) for text, value in patterns.items()}


def _named(names: tuple[str, ...] | re.Pattern[str], module: str) -> bool:
    if isinstance(names, re.Pattern):
        return names.fullmatch(module) is not None
    return any(module == name or module.endswith(f".{name}") for name in names)


def _names(where: Path, key: str, value: Any) -> tuple[str, ...] | re.Pattern[str]:
    if isinstance(value, str):
        return _compile(where, key, value)
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return tuple(value)
    raise PatchError(f"{where}: {key} is neither a list of names nor a regular expression", _HINT)


def _compile(where: Path, key: str, text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise PatchError(f"{where}: {key} is no regular expression: {error}", _HINT) from error
