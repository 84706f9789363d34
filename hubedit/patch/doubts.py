"""What is worth a warning about a patch, whichever command reads or writes it: one line each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from hubedit.patch.adapter import MOST_RANK

if TYPE_CHECKING:
    from hubedit.patch.value import Patch


def doubts(patch: Patch) -> tuple[str, ...]:
    """A change of nothing; what a foreign adapter's configuration names and no tensor belongs to."""
    found = []
    if all(not pair.A.any() or not pair.B.any() for pair in patch.pairs.values()):
        found.append("all its factors are zero, so it changes nothing")
    foreign = patch.record.get("foreign")
    stored = foreign.get("doubts") if isinstance(foreign, Mapping) else None
    return (*found, *(map(str, stored) if isinstance(stored, list) else ()))


def too_wide(patch: Patch) -> str:
    """Said of a rank that vLLM refuses; "" of any other."""
    if patch.rank <= MOST_RANK:
        return ""
    return f"the rank is {patch.rank}; vLLM takes at most {MOST_RANK} (--rank {MOST_RANK} truncates)"
