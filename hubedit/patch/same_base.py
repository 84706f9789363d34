"""Whether patches were made for one base model, as far as their records show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from hubedit.errors import PatchError
from hubedit.patch.base import Claim
from hubedit.patch.names import dimensions, last

if TYPE_CHECKING:
    from hubedit.patch.value import Patch

_SAME_DTYPE = "make both patches with the same --dtype"
_HINT = "only patches of the same base at the same commit can be added"


@dataclass(frozen=True)
class Base:
    """What the patches have in common: `record` as hubedit.json holds it, `name` as PEFT loads it."""

    record: dict[str, Any]
    name: str
    commit: str
    fan_in_fan_out: bool


def merged_base(patches: Sequence[Patch], names: Sequence[str]) -> Base:
    """The base of all patches, with the tensor hashes of all. Raises PatchError when they differ.

    Two commits must be equal; without them the hash of the whole model, or of every weight that both
    touch, must be. A foreign adapter knows no hashes: the name it gives must be the same.
    """
    for one, two in combinations(range(len(patches)), 2):
        _check(patches[one], patches[two], names[one], names[two])
    own = [patch for patch in patches if not is_foreign(patch)] or list(patches)
    chosen = next((patch for patch in own if patch.commit), own[0])
    record = {**_record(chosen), "tensors": {}}
    # hashes of a float32 model are those of the stored weights, which any dtype's record agrees with
    claims = [Claim.of(patch.record) for patch in patches]
    known = [claim for claim in claims if not claim.foreign]
    if narrow := [claim.dtype for claim in known if claim.dtype in ("float16", "bfloat16")]:
        record["dtype"] = narrow[0]
    for claim in claims:
        record["tensors"] |= claim.hashes
    touched = {module for patch in patches for module in patch.pairs}
    if unknown := sorted(touched - set(record["tensors"])):
        record["unverified"] = unknown  # only foreign adapters touch them
    return Base(record, chosen.base, chosen.commit, chosen.fan_in_fan_out)


def _check(one: Patch, two: Patch, first: str, second: str) -> None:
    """Raises PatchError with the first thing that shows that the bases differ."""

    def differ(what: str, hint: str = _HINT) -> PatchError:
        return PatchError(f"{first} and {second} have different bases: {what}", hint)

    a, b = _record(one), _record(two)
    if a.get("family") and b.get("family") and a["family"] != b["family"]:
        raise differ(f"{a['family']} and {b['family']}")
    for module in sorted(set(one.pairs) & set(two.pairs)):
        shapes = one.pairs[module].shape, two.pairs[module].shape
        if shapes[0] != shapes[1]:
            raise differ(f"{module} is {dimensions(shapes[0])} and {dimensions(shapes[1])}")
    if one.commit and two.commit and one.commit != two.commit:
        raise differ(f"commits {one.commit[:12]} and {two.commit[:12]}")
    claim, other = Claim.of(one.record), Claim.of(two.record)
    hashes, others = claim.hashes, other.hashes
    shared = sorted(set(hashes) & set(others))
    dtypes = claim.dtype, other.dtype
    for module in shared:
        if claim.judge(module, {others[module]}) == "other":
            if one.commit and dtypes[0] != dtypes[1]:
                raise differ(f"{module} was loaded as {dtypes[0]} and as {dtypes[1]}", _SAME_DTYPE)
            raise differ(f"{module} has other weights")
    # without a weight in common the record must still name one dtype that explains every hash
    if hashes and others and not shared and set(dtypes) == {"float16", "bfloat16"}:
        raise differ("one was loaded as float16, the other as bfloat16", _SAME_DTYPE)
    if one.commit and two.commit:
        return
    if shared or (a.get("identity") and a.get("identity") == b.get("identity")):
        return
    if is_foreign(one) or is_foreign(two):
        if last(one.base) != last(two.base):
            raise differ(f"{one.base or 'no name'} and {two.base or 'no name'}")
        return
    raise PatchError(
        f"nothing shows that {first} and {second} have the same base: they touch no weight in common, "
        "and name no common commit",
        "make both from the same Hub repository, or from the same unchanged folder",
    )


def _record(patch: Patch) -> Mapping[str, Any]:
    base = patch.record.get("base")
    return base if isinstance(base, Mapping) else {}


def is_foreign(patch: Patch) -> bool:
    """Whether another tool made it, so that nothing is known of its facts and its base's weights."""
    return "foreign" in patch.record
