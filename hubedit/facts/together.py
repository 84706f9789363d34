"""Things that belong together because they share a name with each other, or with one that both know."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Sequence

from hubedit.facts.answers import normalise
from hubedit.facts.types import Fact

Names = Collection[Hashable]
"""All that a thing is known by."""


def together(names: Iterable[Names]) -> tuple[int, ...]:
    """The group of each thing, 0 and up in the order of the things; `names` has all names of each. In about
    as many steps as there are names (disjoint sets with path halving)."""
    parent: list[int] = []
    first: dict[Hashable, int] = {}

    def root(n: int) -> int:
        while parent[n] != n:
            parent[n] = parent[parent[n]]
            n = parent[n]
        return n

    for n, own in enumerate(names):
        parent.append(n)
        for name in own:
            one, other = sorted((root(n), root(first.setdefault(name, n))))
            parent[other] = one
    number: dict[int, int] = {}
    return tuple(number.setdefault(root(n), len(number)) for n in range(len(parent)))


def again(old: Sequence[Fact], new: Sequence[Fact]) -> dict[int, int]:
    """Which of the old facts the new ones edit again, by their prompt, or by subject and template: index in
    `old` -> index in `new`."""
    place: dict[Hashable, int] = {normalise(f.prompt): n for n, f in enumerate(new)}
    place |= {(normalise(f.subject), f.template): n for n, f in enumerate(new)}
    found: dict[int, int] = {}
    for number, fact in enumerate(old):
        for name in ((normalise(fact.subject), fact.template), normalise(fact.prompt)):
            if name in place:
                found.setdefault(number, place[name])
    return found
