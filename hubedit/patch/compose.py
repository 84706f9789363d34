"""Several patches of one base as one: the factors are concatenated, so the change is exactly their sum."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from hubedit.errors import ConfigError, PatchError
from hubedit.facts import Fact
from hubedit.model.chat import RECORD as CHAT
from hubedit.patch.conflicts import Conflict, conflicts, losers
from hubedit.patch.identity import patch_id
from hubedit.patch.ledger import joined_steps, without_facts
from hubedit.patch.owners import Owners, as_record, inseparable, owners
from hubedit.patch.pair import Factors, Pair
from hubedit.patch.same_base import is_foreign, merged_base

if TYPE_CHECKING:
    from hubedit.patch.value import Patch

OnConflict = Literal["stop", "last", "first"]
# what of a part's record is worth keeping; the rest is in the part itself
_SHORT = (
    "method",
    "layers",
    "alpha",
    "seed",
    "metrics",
    "perplexity",
    "truncation",
    "foreign",
    "composed_of",
)


class ConflictError(PatchError):
    """Facts that two patches both edit, and of which none gives way; `problems`: one line for each pair."""


@dataclass(frozen=True)
class Composed:
    """`conflicts`: everything found between the patches, whatever became of it. `dropped`: facts taken
    out because another patch won. `energy`: by module, when it was truncated.
    """

    patch: Patch
    conflicts: tuple[Conflict, ...]
    dropped: tuple[Fact, ...]
    energy: Mapping[str, float]


def compose(patches: Sequence[Patch], *, on_conflict: OnConflict = "stop", rank: int = 0) -> Patch:
    """`composed` without the report."""
    return composed(patches, on_conflict=on_conflict, rank=rank).patch


def composed(
    patches: Sequence[Patch],
    *,
    on_conflict: OnConflict = "stop",
    rank: int = 0,
    names: Sequence[str] = (),
) -> Composed:
    """The sum of patches of one base: factors side by side, in the given order; facts likewise.

    `rank`: more than 0 truncates each module's sum to it (Eckart-Young). `on_conflict`: what happens
    when two patches edit the same prompt, to different targets or to the same one (the sum would hold its
    change twice). "stop" raises ConflictError. "last" and "first" take the loser's rows out of its factors
    where every row belongs to one fact; the other facts keep theirs. Of a truncated or foreign patch no fact
    can be taken out, and facts about one subject only together (`hubedit.patch.owners`): where one that
    cannot go would have to give way, ConflictError is raised too. `names`: of the patches, for messages.
    Raises PatchError for patches of different bases, ConfigError for options
    and for the same patch twice.
    """
    if not patches:
        raise ConfigError("no patch to compose", "give at least one")
    if on_conflict not in get_args(OnConflict):
        raise ConfigError(
            f"unknown on_conflict {on_conflict!r}", f"one of: {', '.join(get_args(OnConflict))}"
        )
    if rank < 0:
        raise ConfigError(f"rank is {rank}", "0 keeps the sum exact")
    names = names or [f"patch {n + 1}" for n in range(len(patches))]
    base = merged_base(patches, names)
    _refuse_repeated(patches, names)
    found = conflicts(patches)
    gone = decide(found, patches, names, on_conflict)
    left = [(patch, gone.get(n, set())) for n, patch in enumerate(patches)]
    parts = [
        without_facts(patch, out) if out else patch
        for patch, out in left
        if len(out) < len(patch.facts) or not out
    ]
    record: dict[str, Any] = {
        "base": base.record,
        "composed_of": [
            _short(patch, [patch.facts[f] for f in sorted(gone.get(n, ()))])
            for n, patch in enumerate(patches)
        ],
        "on_conflict": on_conflict,
        "steps": joined_steps(parts),
    }
    templates = [patch.record.get(CHAT) for patch in patches]
    if templates[0] is not None and templates.count(templates[0]) == len(templates):
        record[CHAT] = templates[0]
    if (rows := _rows(parts)) is not None:
        record["rows"] = as_record(rows)
    if sizes := weight_norms(patches):
        record["sites"] = sizes
    facts = unique_ids([fact for part in parts for fact in part.facts])
    whole = replace(
        patches[0],
        factors=Factors(_sum(parts)),
        record=record,
        base=base.name,
        commit=base.commit,
        facts=facts,
        fan_in_fan_out=base.fan_in_fan_out,
    )
    energy: Mapping[str, float] = {}
    if 0 < rank < max(pair.rank for pair in whole.pairs.values()):
        whole, energy = whole.truncate(rank)
    dropped = [patches[n].facts[f] for n in sorted(gone) for f in sorted(gone[n])]
    return Composed(whole, tuple(found), tuple(dropped), energy)


def decide(
    found: Iterable[Conflict], patches: Sequence[Patch], names: Sequence[str], on_conflict: OnConflict
) -> dict[int, set[int]]:
    """Patch -> its facts that give way, so that every prompt is edited once.

    Raises ConflictError where nothing says which of two facts counts ("stop"), and where the one that would
    have to give way cannot be taken out of its patch.
    """
    same = [c for c in found if c.kind != "overlap"]
    if not same:
        return {}
    if on_conflict == "stop":
        what = "contradict each other" if same[0].kind == "contradiction" else "edit the same facts"
        raise _refused(f"the patches {what}", same, names, "--on-conflict last or first says which counts")
    mixed = [n for n, patch in enumerate(patches) if owners(patch) is None]
    fixed = {(n, fact) for n in mixed for fact in range(len(patches[n].facts))}
    gone = losers(same, on_conflict, fixed)
    while more := {(n, fact) for n, facts in gone.items() for fact in inseparable(patches[n], facts)}:
        fixed |= more
        gone = losers(same, on_conflict, fixed)
    if stuck := [c for c in same if _both_stay(c, gone)]:
        raise _refused(
            "a fact would have to give way and cannot: its patch is truncated or foreign, or changed another "
            "fact about the same subject, or another name that was new to the model, with it",
            stuck,
            names,
            "edit the later facts on top of the earlier patch: hubedit apply --on PATCH",
        )
    return gone


def _refused(what: str, found: Sequence[Conflict], names: Sequence[str], hint: str) -> ConflictError:
    lines = [c.describe(names) for c in found]
    more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
    return ConflictError(f"{what}: {lines[0]}{more}", hint, lines)


def weight_norms(patches: Iterable[Patch]) -> dict[str, dict[str, Any]]:
    """Module -> {"weight_norm": |W| of the base} as the patches' records know it."""
    found: dict[str, dict[str, Any]] = {}
    for patch in patches:
        sites = patch.record.get("sites")
        for module, stored in sites.items() if isinstance(sites, Mapping) else ():
            if module in patch.pairs and isinstance(stored, Mapping) and "weight_norm" in stored:
                found.setdefault(module, {"weight_norm": stored["weight_norm"]})
    return found


def _refuse_repeated(patches: Sequence[Patch], names: Sequence[str]) -> None:
    """One change twice is a change of double size, which no edit was made for."""
    seen: dict[str, str] = {}
    for patch, name in zip(patches, names, strict=True):
        identifier = patch_id(patch)
        if identifier in seen:
            which = f"{name} is given twice" if seen[identifier] == name else f"{seen[identifier]} and {name}"
            same = "" if seen[identifier] == name else " are the same patch"
            raise ConfigError(f"{which}{same} ({identifier[:12]})", "name every patch once")
        seen[identifier] = name


def _sum(parts: Sequence[Patch]) -> dict[str, Pair]:
    """Factors side by side."""
    total: dict[str, Pair] = {}
    for part in parts:
        for module, pair in part.pairs.items():
            total[module] = total[module] + pair if module in total else pair
    return total


def _rows(parts: Sequence[Patch]) -> Owners | None:
    """Who owns each row of the sum, or None as soon as one part does not know."""
    total: dict[str, tuple[int, ...]] = {}
    start = 0
    for part in parts:
        own = owners(part)
        if own is None:
            return None
        for module, facts in own.items():
            total[module] = total.get(module, ()) + tuple(start + fact for fact in facts)
        start += len(part.facts)
    return total


def _both_stay(conflict: Conflict, gone: Mapping[int, set[int]]) -> bool:
    """Whether both changes of two facts with one prompt are in the sum."""
    first, second = gone.get(conflict.first, set()), gone.get(conflict.second, set())
    return conflict.first_fact not in first and conflict.second_fact not in second


def _short(patch: Patch, dropped: Sequence[Fact]) -> dict[str, Any]:
    """What the sum's record says about one part."""
    short: dict[str, Any] = {"id": patch_id(patch), "facts": len(patch.facts)}
    short["rank"] = max(pair.rank for pair in patch.pairs.values())
    short["norms"] = {module: pair.norm() for module, pair in patch.pairs.items()}
    short |= {key: patch.record[key] for key in _SHORT if key in patch.record}
    if is_foreign(patch):
        short["base_verified"] = False
    if dropped:
        short["dropped"] = len(dropped)
    return short


def unique_ids(facts: Iterable[Fact]) -> tuple[Fact, ...]:
    """The facts with ids that two patches both gave made different, as facts files require."""
    facts = list(facts)
    taken = {fact.id for fact in facts}
    seen: set[str] = set()
    kept: list[Fact] = []
    for fact in facts:
        if fact.id and fact.id in seen:
            number = 2
            while f"{fact.id}-{number}" in taken:
                number += 1
            fact = replace(fact, id=f"{fact.id}-{number}")
            taken.add(fact.id)
        seen.add(fact.id)
        kept.append(fact)
    return tuple(kept)
