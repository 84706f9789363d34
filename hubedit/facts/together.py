"""Things that belong together because they share a name with each other, or with one that both know."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Sequence

from hubedit.facts.answers import normalise
from hubedit.facts.types import Fact


def together(names: Iterable[Collection[Hashable]]) -> tuple[int, ...]:
    """The group of each thing, 0 and up in the order of the things; `names` has all names of each."""
    found: list[int] = []
    first: dict[Hashable, int] = {}
    for n, own in enumerate(names):
        known = sorted({first[name] for name in own if name in first})
        group = known[0] if known else n
        if len(known) > 1:  # it joins groups that were apart
            found = [group if other in known else other for other in found]
            first = {name: group if other in known else other for name, other in first.items()}
        found.append(group)
        first |= dict.fromkeys(own, group)
    number = {group: i for i, group in enumerate(dict.fromkeys(found))}
    return tuple(number[group] for group in found)


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
