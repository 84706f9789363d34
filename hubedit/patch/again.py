"""Making a patch again from its record, and saying what differs where it does not come out the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from hubedit.config import EditConfig, from_dict
from hubedit.errors import ConfigError, FactsError, PatchError
from hubedit.patch.identity import patch_id
from hubedit.patch.pair import Pair
from hubedit.patch.value import Patch


@dataclass(frozen=True)
class Comparison:
    """`same`: the adapters are equal byte for byte; `differs`: what is not as it was, one line each."""

    same: bool
    differs: tuple[str, ...]


def settings_of(patch: Patch, corpus: str = "") -> EditConfig:
    """The configuration that a patch was made with; `corpus`: where a local text file lies here.

    Raises PatchError for a patch that is not of one edit, or of another version's settings.
    """
    record = patch.record
    config = record.get("config")
    if "on" in record:
        raise PatchError("the patch stands on an older one, whose edit it does not hold", _APART)
    if not isinstance(config, Mapping):
        raise PatchError("the patch was not made by one hubedit apply, so it cannot be made again", _APART)
    config = {**config, **_before(config)}
    try:
        found = from_dict(EditConfig, config)
    except (ConfigError, TypeError, AttributeError) as error:
        version = _packages(record).get("hubedit", "another version")
        raise PatchError(f"settings of hubedit {version}: {error}", "use that version") from error
    return replace(found, stats=replace(found.stats, corpus=corpus)) if corpus else found


def check_facts(patch: Patch, sha256: str, source: str) -> None:
    """Raises FactsError unless the facts are those that the patch was made from."""
    stored = patch.record.get("facts")
    wanted = stored.get("sha256") if isinstance(stored, Mapping) else None
    if wanted is not None and wanted != sha256:
        raise FactsError(
            f"{source} does not hold the facts that the patch was made from",
            f"they have sha256 {str(wanted)[:12]}, these {sha256[:12]}",
        )


def compare(old: Patch, new: Patch) -> Comparison:
    """A patch beside the one that it repeats."""
    same = patch_id(old) == patch_id(new)
    if same:
        return Comparison(True, ())
    return Comparison(False, (*_circumstances(old.record, new.record), _distance(old, new)))


_APART = "apply the facts anew; --from repeats what one hubedit apply made from a base model"
_NAMES = (
    ("device", "the device"),
    ("dtype", "the type it was computed in"),
    ("platform", "the platform"),
)


def _circumstances(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """What the two records say that may explain other numbers."""
    base, own = old.get("base") or {}, new.get("base") or {}
    if base.get("tensors") != own.get("tensors"):
        yield f"the base model: {_base(base)} had other weights than {_base(own)}"
    for name, what in _NAMES:
        if old.get(name) != new.get(name):
            yield f"{what}: {old.get(name)} then, {new.get(name)} now"
    text, now = ((r.get("statistics") or {}).get("source") for r in (old, new))
    if text != now:
        yield "the text that the statistics are of (--corpus names the file)"
    before, after = _packages(old), _packages(new)
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            yield f"{name}: {before.get(name, 'none')} then, {after.get(name, 'none')} now"


def _distance(old: Patch, new: Patch) -> str:
    """How far the changes of the weights are apart."""
    if {m: p.shape for m, p in old.pairs.items()} != {m: p.shape for m, p in new.pairs.items()}:
        return f"the edited weights: {', '.join(old.pairs)} then, {', '.join(new.pairs)} now"
    far = 0.0
    for module, pair in old.pairs.items():
        other = new.pairs[module]
        size = pair.norm()
        far = max(far, (pair + Pair(-other.B, other.A)).norm() / size) if size else far
    why = "other processors and numbers of threads round otherwise"
    return f"the change of a weight, by at most {far:.1%}: {why}"


def _base(record: Mapping[str, Any]) -> str:
    return str(record.get("ref") or record.get("identity") or "the base")


def _packages(record: Mapping[str, Any]) -> dict[str, str]:
    found = record.get("packages")
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, Mapping) else {}


def _before(config: Mapping[str, Any]) -> dict[str, Any]:
    """What settings that an older patch does not name were when it was made: nothing of what came later."""
    # the published methods have none of these, and must not be told
    older: dict[str, Any] = {"chat_template": 0.0, "chat_step": 1.0, "norm_step": 1.0, "lam_per_fact": 0.0}
    if config.get("method") != "joint":
        older = {}
    found = {name: value for name, value in older.items() if name not in config}
    for part, name, value in (("stats", "names", 0.0), ("targets", "tokens_per_rounds", 1 << 30)):
        own = config.get(part)
        if isinstance(own, Mapping) and name not in own:
            found[part] = {**own, name: value}
    return found
