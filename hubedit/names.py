"""Sentences about names of many kinds, as part of the text that the statistics read.

A fact is about a name, and what its update does to other names is the harm that people see. Ordinary text has
too few of them for their keys to weigh much among what is preserved (docs/experiments.md).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache
from importlib.resources import files

_FILE = "names.txt"


@cache
def _text() -> str:
    return (files("hubedit") / _FILE).read_text(encoding="utf-8")


def names_digest() -> str:
    """sha256 of the list, for keys of what is computed from it."""
    return hashlib.sha256(_text().encode()).hexdigest()


@cache
def kinds() -> tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]:
    """(sentences with {} for the name, names) of every kind."""
    found: list[tuple[list[str], list[str]]] = []
    for line in _text().splitlines():
        if line.startswith("="):
            found.append(([], []))
        elif line and not line.startswith("#"):
            found[-1]["{}" not in line].append(line)
    return tuple((tuple(sentences), tuple(names)) for sentences, names in found)


def sentences() -> Iterator[str]:
    """Every name in one sentence of its kind, the kinds in turn; then every name in another one, until all
    sentences were there once."""
    longest = max(len(own) for own, _ in kinds())
    most = max(len(names) for _, names in kinds())
    for number in range(longest):
        for at in range(most):
            for own, names in kinds():
                if at < len(names) and number < len(own):
                    yield own[(at + number) % len(own)].format(names[at])
