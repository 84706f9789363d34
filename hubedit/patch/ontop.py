"""Editing on top of a patch: what it already changed is the model that the new facts meet.

The keys that the older facts have now join what the solve preserves, and an answer about a subject that is
edited again is among what its new target must give (`hubedit.edit.methods.joint`). The result is one patch,
the exact sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hubedit.errors import PatchError
from hubedit.facts import Fact
from hubedit.facts.answers import normalise
from hubedit.model.editable import EditableModel
from hubedit.patch.compose import unique_ids, weight_norms
from hubedit.patch.identity import patch_id
from hubedit.patch.owners import as_record, owners
from hubedit.patch.pair import Factors, Pair
from hubedit.patch.value import Patch


def protected(patch: Patch | None, facts: Sequence[Fact]) -> tuple[Fact, ...]:
    """The patch's facts that the new ones do not edit again. Raises PatchError where it holds none."""
    if patch is None:
        return ()
    if not patch.facts:
        raise PatchError(
            "the patch was saved without its facts, so they cannot be protected",
            "apply the new facts to the base, then hubedit compose both patches",
        )
    again = {(normalise(f.subject), f.template) for f in facts} | {normalise(f.prompt) for f in facts}
    return tuple(
        f
        for f in patch.facts
        if (normalise(f.subject), f.template) not in again and normalise(f.prompt) not in again
    )


def replaced(patch: Patch | None, facts: Sequence[Fact]) -> tuple[Fact, ...]:
    """The patch's facts that the new ones edit again, and that are no longer protected."""
    kept = set(protected(patch, facts))
    return tuple(f for f in patch.facts if f not in kept) if patch is not None else ()


def stacked(old: Patch, new: Patch) -> Patch:
    """One patch that does both. Older facts that the new ones edit again leave the list of facts; their
    factors stay, since the new ones were computed with them in effect."""
    kept = protected(old, new.facts)
    pairs: dict[str, Pair] = dict(old.pairs)
    for module, pair in new.pairs.items():
        pairs[module] = pairs[module] + pair if module in pairs else pair
    record: dict[str, Any] = {**new.record, "on": {"id": patch_id(old), "facts": len(old.facts)}}
    record["base"] = {**new.record["base"], "tensors": _tensors(old, new)}
    if sizes := weight_norms([old]):
        told = record.get("sites")
        record["sites"] = {**sizes, **(told if isinstance(told, Mapping) else {})}
    whole = replace(new, factors=Factors(pairs), record=record, facts=unique_ids([*kept, *new.facts]))
    # an empty record says that rows and facts do not correspond, whatever their numbers
    rows = as_record(_rows(old, new, kept) or {})
    return replace(whole, record={**record, "rows": rows})


def whole_sites(told: Mapping[str, Any], patch: Patch, em: EditableModel) -> dict[str, Any]:
    """What is told of each weight of a stacked patch, `told` of the new part, with the size of the whole
    change: that is what the patch does to the base."""
    known = patch.record.get("sites")
    old: Mapping[str, Any] = known if isinstance(known, Mapping) else {}
    found = {}
    for module, site in patch.sites(em).items():
        entry = {"layer": site.layer, "kind": site.kind, **old.get(module, {}), **told.get(module, {})}
        norm, weight = patch.pairs[module].norm(), entry.get("weight_norm")
        found[module] = {**entry, "norm": norm, "relative_norm": norm / weight if weight else None}
    return found


def _tensors(old: Patch, new: Patch) -> dict[str, Any]:
    return {**old.record.get("base", {}).get("tensors", {}), **new.record["base"]["tensors"]}


def _rows(old: Patch, new: Patch, kept: Sequence[Fact]) -> Mapping[str, tuple[int, ...]] | None:
    """The owner of every row, when both patches know theirs and no older fact was edited again."""
    first, second = owners(old), owners(new)
    if first is None or second is None or len(kept) < len(old.facts):
        return None
    return {
        module: (*first.get(module, ()), *(n + len(kept) for n in second.get(module, ())))
        for module in {*first, *second}
    }
