"""The steps of a patch that was made in several: what each added, and how to take one out again.

A step's change is a block of rows of every module's factors, in the order of the steps, and its facts are a
run of the patch's facts. So a step leaves by its blocks, and a fact by the rows that it owns
(`hubedit.patch.owners`), while every other row stays as it is to the bit. A truncated patch has mixed its
rows: its steps are listed, and none can leave.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hubedit.errors import PatchError
from hubedit.facts import Fact, from_record, to_record
from hubedit.facts.together import again
from hubedit.patch.identity import patch_id
from hubedit.patch.owners import as_record, inseparable, owners
from hubedit.patch.pair import Factors, Pair

if TYPE_CHECKING:
    from hubedit.patch.value import Patch

Step = dict[str, Any]
"""JSON data. `id`: of the patch that the step alone would be; `facts`: how many of the patch's facts are its
own; `rows`: how many rows of each module; `replaced`: facts of older steps that it edited again, each with
the number of its step; `method`, `layers`, `metrics`, `perplexity`, `drift`, `norm`, `older` where known;
`whole`: drift and norm of all steps up to this one together."""

_TOLD = ("method", "layers", "batch_size", "seed", "metrics", "perplexity")
# what was measured with all facts in effect
_OF_THE_WHOLE = ("metrics", "counts", "perplexity", "targets", "trace")
_MIXED = "edit the facts again with hubedit apply --on, which mixes nothing"


def steps_of(patch: Patch) -> list[Step]:
    """The steps, oldest first; a patch that was made at once is one."""
    steps = patch.record.get("steps")
    if isinstance(steps, list) and all(isinstance(step, Mapping) for step in steps):
        return [{**step, "replaced": [dict(e) for e in step.get("replaced", ())]} for step in steps]
    rows = {module: pair.rank for module, pair in patch.pairs.items()}
    step = {"id": patch_id(patch), "facts": len(patch.facts), "rows": rows}
    return [step | brief(patch.record)]


def brief(record: Mapping[str, Any]) -> Step:
    """What a step tells of the record of the patch that it was, with its `sizes`."""
    return {name: record[name] for name in _TOLD if name in record} | sizes(record)


def sizes(record: Mapping[str, Any]) -> dict[str, float]:
    """`drift` and `norm` of a patch's record where each is largest, the norm relative to the weight's."""
    sites, found = record.get("sites"), {}
    values = sites.values() if isinstance(sites, Mapping) else ()
    for name, key in (("drift", "drift"), ("norm", "relative_norm")):
        known = [site[key] for site in values if isinstance(site, Mapping) and site.get(key) is not None]
        if known:
            found[name] = max(known)
    return found


def extended(old: Patch, new: Patch) -> list[Step]:
    """The steps of `old` with `new` on top; facts that it edits again are its own from now on."""
    steps, gone = steps_of(old), again(old.facts, new.facts)
    if "steps" not in old.record and (alone := sizes(old.record)):
        steps[0]["whole"] = alone
    home = _runs(step["facts"] for step in steps)
    (step,) = steps_of(replace(new, record={k: v for k, v in new.record.items() if k != "steps"}))
    if gone:
        step["replaced"] = [{"step": home[n], "fact": to_record(old.facts[n])} for n in gone]
    for number in gone:
        steps[home[number]]["facts"] -= 1
    return [*steps, step]


def joined_steps(parts: Sequence[Patch]) -> list[Step]:
    """The steps of a sum of patches."""
    joined: list[Step] = []
    for part in parts:
        own = steps_of(part)
        for step in own:
            step.pop("whole", None)  # the other parts were not in it
            for entry in step.get("replaced", ()):
                entry["step"] += len(joined)
        joined += own
    return joined


def without_facts(patch: Patch, gone: Collection[int]) -> Patch:
    """The patch without some of its facts, and without what older steps had changed of the same facts.

    Raises PatchError where one cannot leave alone, and where nothing would be left.
    """
    if owners(patch) is None:
        raise PatchError("the rows of this patch belong to no single facts: none can be taken out", _MIXED)
    if stuck := inseparable(patch, gone):
        names = ", ".join(repr(patch.facts[n].prompt) for n in sorted(stuck)[:3])
        raise PatchError(
            f"{names}: another fact about the same subject shares what was changed",
            "take all facts about the subject out together, or edit them again with hubedit apply --on",
        )
    parts = _Parts.of(patch)
    removed = [parts.facts.pop(n)[1] for n in gone]
    for step in parts.steps:
        older = [from_record(entry["fact"]) for entry in step.get("replaced", ())]
        left = again(older, removed)
        step["replaced"] = [e for n, e in enumerate(step.get("replaced", ())) if n not in left]
    parts.rows = {m: [row for row in own if row[2] not in gone] for m, own in parts.rows.items()}
    return parts.patch(patch)


def without_step(patch: Patch, which: str = "") -> Patch:
    """The patch without the step of an id, or its beginning ("": the newest). Facts that it edited again are
    the older step's once more. Raises PatchError for an id of none or several, and where nothing is left."""
    parts = _Parts.of(patch)
    found = [n for n, step in enumerate(parts.steps) if str(step["id"]).startswith(which)]
    if which and len(found) != 1:
        what = "several steps begin" if found else "no step begins"
        raise PatchError(f"{what} with {which!r}", "hubedit log PATCH lists them")
    if any(len(parts.rows[m]) != pair.rank for m, pair in patch.pairs.items()):
        raise PatchError("the rows of this patch belong to no single steps: none can be taken out", _MIXED)
    at = found[-1]
    removed = {key: fact for key, (step, fact) in parts.facts.items() if step == at}
    for key in removed:
        del parts.facts[key]
    parts.rows = {m: [row for row in own if row[1] != at] for m, own in parts.rows.items()}
    for entry in parts.steps[at].get("replaced", ()):
        parts.give_back(entry, at, removed)
    del parts.steps[at]
    parts.facts = {key: (step - (step > at), fact) for key, (step, fact) in parts.facts.items()}
    parts.rows = {m: [(n, s - (s > at), k) for n, s, k in own] for m, own in parts.rows.items()}
    for step in parts.steps:
        left = [entry for entry in step.get("replaced", ()) if entry["step"] != at]
        step["replaced"] = [{**e, "step": e["step"] - (e["step"] > at)} for e in left]
    return parts.patch(patch)


@dataclass
class _Parts:
    """A patch taken apart. `facts`: key -> its step and the fact; `rows`: of each module, the place, the step
    and the fact's key of each row (-1: of no single fact)."""

    steps: list[Step]
    facts: dict[int, tuple[int, Fact]]
    rows: dict[str, list[tuple[int, int, int]]]

    @classmethod
    def of(cls, patch: Patch) -> _Parts:
        steps, rows = steps_of(patch), owners(patch)
        home = _runs(step["facts"] for step in steps)
        facts = {n: (home[n], fact) for n, fact in enumerate(patch.facts)}
        split: dict[str, list[tuple[int, int, int]]] = {}
        for module in patch.pairs:
            blocks = _runs(step["rows"].get(module, 0) for step in steps)
            keys = rows[module] if rows is not None else [-1] * len(blocks)
            split[module] = [(n, *both) for n, both in enumerate(zip(blocks, keys, strict=False))]
        return cls(steps, facts, split)

    def give_back(self, entry: Mapping[str, Any], at: int, removed: Mapping[int, Fact]) -> None:
        """A fact that the leaving step `at` had edited again: it is that of its older step once more, unless
        a newer step has edited it yet again, which then stands on the older one."""
        fact = from_record(entry["fact"])
        for step in self.steps[at + 1 :]:
            for newer in step.get("replaced", ()):
                if newer["step"] == at and again([fact], [from_record(newer["fact"])]):
                    newer.update(entry)
                    return
        keys = list(removed)
        former = keys[again([fact], list(removed.values()))[0]]
        key = max([*self.facts, *removed]) + 1
        self.facts[key] = (entry["step"], fact)
        self.rows = {
            m: [(n, step, key if owner == former else owner) for n, step, owner in own]
            for m, own in self.rows.items()
        }

    def patch(self, old: Patch) -> Patch:
        """Put together again. Raises PatchError where no row is left."""
        pairs = {
            m: Pair(old.pairs[m].B[:, [n for n, _, _ in own]], old.pairs[m].A[[n for n, _, _ in own]])
            for m, own in self.rows.items()
            if own
        }
        if not pairs:
            raise PatchError("nothing of the patch would be left", "delete its folder instead")
        order = sorted(self.facts, key=lambda key: (self.facts[key][0], key))
        place = {key: n for n, key in enumerate(order)}
        # from the first row that is not where it was on, the steps stand on another patch
        moved = [step for own in self.rows.values() for at, (n, step, _) in enumerate(own) if n != at]
        first = min(moved, default=len(self.steps))
        for number, step in enumerate(self.steps):
            step["facts"] = sum(own == number for own, _ in self.facts.values())
            counts = {m: sum(s == number for _, s, _ in self.rows[m]) for m in pairs}
            before, step["rows"] = step["rows"], {m: count for m, count in counts.items() if count}
            if number >= first or step["rows"] != before:
                step.pop("whole", None)
            if not step.get("replaced"):
                step.pop("replaced", None)
        record = {k: v for k, v in old.record.items() if k not in _OF_THE_WHOLE}
        owned = all(key in place for m in pairs for _, _, key in self.rows[m])
        rows = {m: tuple(place[key] for _, _, key in self.rows[m]) for m in pairs} if owned else {}
        record |= {"rows": as_record(rows), "cut_from": patch_id(old)[:12]}
        if "steps" in record:
            record["steps"] = self.steps
        if isinstance(known := record.get("sites"), Mapping):
            record["sites"] = {
                m: _site(known[m], pairs[m]) for m in pairs if isinstance(known.get(m), Mapping)
            }
        facts = tuple(self.facts[key][1] for key in order)
        return replace(old, factors=Factors(pairs), record=record, facts=facts)


def _site(known: Mapping[str, Any], pair: Pair) -> dict[str, Any]:
    """What the record says of a weight, with the size that its change has now and nothing measured before."""
    found = {name: known[name] for name in ("layer", "kind", "weight_norm") if name in known}
    norm, weight = pair.norm(), found.get("weight_norm")
    return {**found, "norm": norm, "relative_norm": norm / weight if weight else None}


def _runs(counts: Iterable[int]) -> list[int]:
    """0 as often as the first count says, 1 as often as the second, ..."""
    return [n for n, count in enumerate(counts) for _ in range(count)]
