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
from hubedit.facts.together import again
from hubedit.model.editable import EditableModel
from hubedit.model.sites import Site
from hubedit.patch.compose import unique_ids, weight_norms
from hubedit.patch.identity import patch_id
from hubedit.patch.ledger import extended, steps_of
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
    gone = again(patch.facts, facts)
    return tuple(f for n, f in enumerate(patch.facts) if n not in gone)


def origins(patch: Patch | None, facts: Sequence[Fact]) -> list[str]:
    """For each of the `protected` facts the id of the step that edited it."""
    if patch is None:
        return []
    gone = again(patch.facts, facts)
    home = [str(step["id"]) for step in steps_of(patch) for _ in range(step["facts"])]
    return [step for n, step in enumerate(home) if n not in gone]


def replaced(patch: Patch | None, facts: Sequence[Fact]) -> tuple[Fact, ...]:
    """The patch's facts that the new ones edit again, and that are no longer protected."""
    if patch is None:
        return ()
    gone = again(patch.facts, facts)
    return tuple(f for n, f in enumerate(patch.facts) if n in gone)


def stacked(old: Patch, new: Patch) -> Patch:
    """One patch that does both, and whose record lists the steps. Older facts that the new ones edit again
    leave the list of facts; their factors stay, since the new ones were computed with them in effect, and
    belong to the facts that took their place."""
    kept = protected(old, new.facts)
    pairs: dict[str, Pair] = dict(old.pairs)
    for module, pair in new.pairs.items():
        pairs[module] = pairs[module] + pair if module in pairs else pair
    record: dict[str, Any] = {**new.record, "on": {"id": patch_id(old), "facts": len(old.facts)}}
    record |= {"steps": extended(old, new)}
    record["base"] = {**new.record["base"], "tensors": _tensors(old, new)}
    if sizes := weight_norms([old]):
        own = record.get("sites")
        record["sites"] = {**sizes, **(own if isinstance(own, Mapping) else {})}
    whole = replace(new, factors=Factors(pairs), record=record, facts=unique_ids([*kept, *new.facts]))
    # an empty record says that rows and facts do not correspond, whatever their numbers
    rows = as_record(_rows(old, new, len(kept)) or {})
    return replace(whole, record={**record, "rows": rows})


def whole_sites(
    own: Mapping[str, Any], patch: Patch, em: EditableModel, drift: Mapping[Site, float]
) -> dict[str, Any]:
    """The record of each weight of a stacked patch: `own` of the new part, with size and drift of the whole
    change, which is what the patch does to the base. `drift`: at the sites of the new part."""
    known = patch.record.get("sites")
    old: Mapping[str, Any] = known if isinstance(known, Mapping) else {}
    found = {}
    for module, site in patch.sites(em).items():
        entry = {"layer": site.layer, "kind": site.kind, **old.get(module, {}), **own.get(module, {})}
        norm, weight = patch.pairs[module].norm(), entry.get("weight_norm")
        found[module] = {**entry, "norm": norm, "relative_norm": norm / weight if weight else None}
        if site in drift:
            found[module]["drift"] = drift[site]
    return found


def _tensors(old: Patch, new: Patch) -> dict[str, Any]:
    return {**old.record.get("base", {}).get("tensors", {}), **new.record["base"]["tensors"]}


def _rows(old: Patch, new: Patch, kept: int) -> Mapping[str, tuple[int, ...]] | None:
    """The owner of every row, when both patches know theirs."""
    first, second = owners(old), owners(new)
    if first is None or second is None:
        return None
    gone = again(old.facts, new.facts)
    left = iter(range(kept))
    place = [kept + gone[n] if n in gone else next(left) for n in range(len(old.facts))]
    return {
        module: (*(place[n] for n in first.get(module, ())), *(n + kept for n in second.get(module, ())))
        for module in {*first, *second}
    }
