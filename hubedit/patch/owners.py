"""Which row of a patch's factors belongs to which fact.

The solve gives every fact one row of A and one column of B (B = R^T, the residuals), in the facts' order.
Without its row a fact asks for no change, and all others ask for what they did before; but facts about one
subject share what they ask for (`hubedit.edit.prompts.same_subject`), and only go together. In patches of
older versions so do names that were new to the model, which have further rows. A truncated or foreign patch
has mixed its rows, and nothing can be taken out of it again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hubedit.facts.answers import normalise
from hubedit.facts.together import together
from hubedit.presets import METHODS

if TYPE_CHECKING:
    from hubedit.patch.value import Patch

Owners = Mapping[str, tuple[int, ...]]
"""Module -> for each row of A, the index of its fact in the patch's facts."""

_MOST = 1_000_000


def owners(patch: Patch) -> Owners | None:
    """The owner of every row, or None where rows and facts do not correspond."""
    record, count = patch.record, len(patch.facts)
    if not count or "truncation" in record:
        return None
    if isinstance(kept := record.get("rows"), Mapping):
        found = {module: _expand(kept.get(module)) for module in patch.pairs}
    elif "method" in record:
        found = {module: tuple(range(count)) for module in patch.pairs}
    else:
        return None
    for module, pair in patch.pairs.items():
        rows = found[module]
        if len(rows) != pair.rank or not all(0 <= fact < count for fact in rows):
            return None
    return found


def inseparable(patch: Patch, gone: Collection[int]) -> set[int]:
    """Those of the facts `gone` that cannot be taken out, since one stays that shares what they ask for:
    a fact about their subject, or where they were new names, another new name."""
    if not _joint(patch.record):
        return set()
    # older versions, which recorded no steps, wrote new names at tokens that have much in common
    rows = {} if "steps" in patch.record else owners(patch) or {}
    wide = {fact for own in rows.values() for fact, n in Counter(own).items() if n > 1}
    # as `hubedit.edit.prompts.same_subject` has them, as far as is known without a tokenizer
    group = together(
        (
            ("subject", normalise(fact.subject)),
            ("words", normalise(fact.template[0] + fact.subject)),
            ("new name", "" if number in wide else str(number)),
        )
        for number, fact in enumerate(patch.facts)
    )
    stay = {group[n] for n in range(len(patch.facts)) if n not in gone}
    return {n for n in gone if group[n] in stay}


def _joint(record: Mapping[str, Any]) -> bool:
    """Whether some of the patch's facts may share what they ask for. The published methods give every fact a
    value of its own; of what a patch stands on the method is not known."""
    parts = record.get("composed_of")
    methods = [part.get("method") for part in parts] if isinstance(parts, list) else [record.get("method")]
    return "on" in record or any(m not in METHODS or not METHODS[m].published for m in methods)


def as_record(rows: Owners) -> dict[str, list[list[int]]]:
    """For hubedit.json under `rows`: half-open ranges of facts, in the order of the rows."""
    return {module: _ranges(facts) for module, facts in rows.items()}


def _ranges(facts: Sequence[int]) -> list[list[int]]:
    ranges: list[list[int]] = []
    for fact in facts:
        if ranges and ranges[-1][1] == fact:
            ranges[-1][1] += 1
        else:
            ranges.append([fact, fact + 1])
    return ranges


def _expand(ranges: Any) -> tuple[int, ...]:
    """The inverse of `_ranges`; of anything else, one owner that no patch has."""
    pairs: list[Any] = ranges if isinstance(ranges, list) else [None]
    facts: list[int] = []
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2 or not all(type(n) is int for n in pair):
            return (-1,)
        start, stop = pair
        if not 0 <= start < stop <= start + _MOST:
            return (-1,)
        facts += range(start, stop)
    return tuple(facts)
