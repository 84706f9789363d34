"""What happens to facts of a stack that contradict each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hubedit.checkpoint.stack import Member
from hubedit.patch.compose import OnConflict, decide
from hubedit.patch.conflicts import Conflict, conflicts
from hubedit.patch.identity import patch_id
from hubedit.patch.ledger import without_facts

_SHOWN = 5


@dataclass(frozen=True)
class Settled:
    """`members`: the stack without the facts that gave way; `notices`: what was found, one line each."""

    members: tuple[Member, ...]
    notices: tuple[str, ...]


def settle(members: Sequence[Member], old: int, on_conflict: OnConflict) -> Settled:
    """Looks for conflicts between new patches and all others; the first `old` members were settled before.

    "stop" raises ConflictError for a prompt that two patches edit; "first" and "last" take the rows of the
    other fact out of its patch, which then has another id, and raise it where that cannot be done.
    """
    names = [each.name or each.id for each in members]
    found = [c for c in conflicts([each.patch for each in members]) if c.second >= old]
    notices = _overlaps(found, names)
    gone = decide(found, [each.patch for each in members], names, on_conflict)
    kept: list[Member] = []
    for number, each in enumerate(members):
        facts = gone.get(number, set())
        cut = _without(each, facts) if facts else each
        if cut is None:
            notices.append(f"{names[number]} is left out: all its facts give way to others")
            continue
        if facts:
            notices.append(f"{len(facts)} of the facts of {names[number]} give way to others")
        kept.append(cut)
    return Settled(tuple(kept), tuple(notices))


def _without(each: Member, gone: set[int]) -> Member | None:
    """A patch whose rows belong to facts without some of them; None without all of them."""
    if len(gone) == len(each.patch.facts):
        return None
    smaller = without_facts(each.patch, gone)
    modules = {tensor: module for tensor, module in each.modules.items() if module in smaller.pairs}
    # its card and report speak of facts that are gone
    return Member(smaller, patch_id(smaller)[:12], each.name, modules, {})


def _overlaps(found: Sequence[Conflict], names: Sequence[str]) -> list[str]:
    """What is worth a warning, but stops nothing."""
    lines = [f"{c.describe(names)}; {c.stronger(names)}" for c in found if c.kind == "overlap"]
    more = [f"and {len(lines) - _SHOWN} more such pairs"] if len(lines) > _SHOWN else []
    return [*lines[:_SHOWN], *more]
