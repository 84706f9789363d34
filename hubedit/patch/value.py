"""`Patch`: an edit as a value, saved as and loaded from a PEFT LoRA adapter."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from hubedit import folder
from hubedit.errors import FactsError, PatchError
from hubedit.facts import Fact, dump_facts, from_record
from hubedit.model.sites import Site
from hubedit.patch import adapter, base
from hubedit.patch.identity import patch_id
from hubedit.patch.pair import Factors, Pair

if TYPE_CHECKING:
    from hubedit.linalg import LowRank
    from hubedit.model.editable import EditableModel

SCHEMA = 1
RECORD = "hubedit.json"
FACTS = "facts.jsonl"
_AGAIN = "make the patch again with hubedit apply"
_OWN = frozenset({adapter.CONFIG, adapter.WEIGHTS, RECORD, FACTS})


@dataclass(frozen=True, eq=False, repr=False)
class Patch:
    """`factors`: module path -> float32 factors of the weight change (d_out, d_in), on the CPU; `pairs`: the
    same for numpy, sharing their memory.

    `record`: content of hubedit.json, plain JSON data; `record["base"]["tensors"]` holds the sha256 of
    each touched base tensor (`base_record`). `base`, `commit`: the base model and its 40-hex commit, ""
    for a local folder. `fan_in_fan_out`: the base stores weights transposed (GPT-2's Conv1D).
    """

    factors: Mapping[str, LowRank]
    record: Mapping[str, Any]
    base: str
    commit: str = ""
    facts: tuple[Fact, ...] = field(default=())
    fan_in_fan_out: bool = False
    pairs: Mapping[str, Pair] = field(init=False)

    def __post_init__(self) -> None:
        if not self.factors:
            raise PatchError("a patch without any factors changes nothing")
        found = Factors.of(self.factors).pairs
        for module, pair in found.items():
            if not pair.finite:
                raise PatchError(f"the change of {module} holds NaN or infinity")
        factors = Factors({module: found[module] for module in sorted(found)})
        object.__setattr__(self, "factors", factors)
        object.__setattr__(self, "pairs", MappingProxyType(factors.pairs))

    def __repr__(self) -> str:
        count = len(self.facts)
        facts = f"{count} fact{'' if count == 1 else 's'}"
        return f"<Patch of {self._made_for}: {facts}, rank {self.rank}, {len(self.pairs)} weights>"

    @property
    def rank(self) -> int:
        """The uniform rank the patch has on disk."""
        return adapter.uniform_rank({module: pair.rank for module, pair in self.pairs.items()})

    @property
    def size(self) -> int:
        """Bytes of its tensors on disk."""
        return sum(4 * self.rank * sum(pair.shape) for pair in self.pairs.values())

    def sites(self, em: EditableModel) -> dict[str, Site]:
        """Module path -> site. Raises PatchError where the model lacks a module or has another shape."""
        return base.map_sites({m: pair.shape for m, pair in self.pairs.items()}, em, self._made_for)

    def by_site(self, em: EditableModel) -> dict[Site, LowRank]:
        """The factors as `EditableModel.with_patch` takes them. Raises PatchError like `sites`."""
        return {site: self.factors[module] for module, site in self.sites(em).items()}

    def fits(self, em: EditableModel) -> None:
        """Raises PatchError unless the model's touched weights are those the patch was made for."""
        if self.commit and self.commit == em.commit:
            self.sites(em)
            return  # one commit, one content; the bytes differ only where it was loaded in a narrower type
        claim, own = base.Claim.of(self.record), patch_id(self)[:12]
        base.check_base(self.sites(em), claim, em, own, self._made_for)

    def checked(self, em: EditableModel) -> dict[Site, LowRank]:
        """`by_site`, after `fits`."""
        self.fits(em)
        return self.by_site(em)

    @property
    def _made_for(self) -> str:
        return f"{self.base}@{self.commit}" if self.commit else self.base

    def __add__(self, other: Patch) -> Patch:
        """Exactly the sum of two patches of one base, with the facts of both (`hubedit.patch.compose`).

        Raises PatchError for patches of different bases and for facts that both edit.
        """
        if not isinstance(other, Patch):
            return NotImplemented
        from hubedit.patch.compose import compose

        return compose([self, other])

    def __reduce__(self) -> tuple[type[Patch], tuple[Any, ...]]:
        return Patch, (
            self.factors,
            self.record,
            self.base,
            self.commit,
            self.facts,
            self.fan_in_fan_out,
        )

    def truncate(self, rank: int) -> tuple[Patch, dict[str, float]]:
        """The best patch of at most `rank` a module (Eckart-Young), and the energy (0..1) each one keeps."""
        if rank < 1:
            raise PatchError(f"cannot truncate to rank {rank}", "give a rank of at least 1")
        pairs, energy = dict(self.pairs), dict.fromkeys(self.pairs, 1.0)
        for module, pair in self.pairs.items():
            if pair.rank > rank:
                pairs[module], energy[module] = pair.truncate(rank)
        record = {**self.record, "truncation": {"rank": rank, "energy": energy}}
        return replace(self, factors=Factors(pairs), record=record), energy

    def save(
        self,
        path: str | Path,
        *,
        with_facts: bool = True,
        files: Mapping[str, bytes] | None = None,
        overwrite: bool = False,
    ) -> Path:
        """Writes the patch as a folder that appears complete or not at all; returns its path.

        `files`: more files by name ("README.md", "plots/trace.png"). `overwrite` replaces an existing
        patch, never another folder. Equal patches give equal bytes. Raises PatchError, and ConfigError
        where something is in the way.
        """
        path = Path(path).expanduser()
        fill = partial(self.write, with_facts=with_facts, files=files)
        folder.write_folder(path, fill, marker=RECORD, overwrite=overwrite)
        return path

    def write(self, path: Path, *, with_facts: bool = True, files: Mapping[str, bytes] | None = None) -> None:
        """Writes the same files into an empty folder, one after another. Raises OSError."""
        more = {str(folder.check_name(name)): data for name, data in (files or {}).items()}
        if taken := _OWN & set(more):
            raise ValueError(f"{min(taken)} is written by the patch itself")
        config = adapter.config(self.base, self.commit, list(self.factors), self.rank, self.fan_in_fan_out)
        _write_json(path / adapter.CONFIG, config)
        adapter.write_weights(self.pairs, self.rank, path / adapter.WEIGHTS)
        record = self.full_record()
        _write_json(path / RECORD, record if with_facts else silent(record))
        if with_facts and self.facts:
            (path / FACTS).write_bytes(dump_facts(self.facts).encode())
        for name, data in more.items():
            file = path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)

    @classmethod
    def load(cls, path: str | Path) -> Patch:
        """Reads and checks a patch folder. Raises PatchError: what is missing, damaged or unusable."""
        path = Path(path).expanduser()
        if not path.is_dir():
            raise PatchError(f"{path} is no patch folder", "give the folder that hubedit apply wrote")
        record = adapter.read_json(path / RECORD)
        version = record.get("schema_version")
        if version != SCHEMA:
            newer = isinstance(version, int) and version > SCHEMA
            hint = "upgrade hubedit" if newer else _AGAIN
            raise PatchError(
                f"{path / RECORD}: schema_version is {version!r}, this hubedit reads {SCHEMA}", hint
            )
        config = adapter.read_config(path / adapter.CONFIG)
        pairs = adapter.read_weights(path / adapter.WEIGHTS, config["target_modules"], config["r"])
        return cls(
            factors=Factors(_unpad(path / RECORD, pairs, record)),
            record=record,
            base=config["base_model_name_or_path"],
            commit=config.get("revision") or "",
            facts=read_facts(path / FACTS),
            fan_in_fan_out=bool(config.get("fan_in_fan_out")),
        )

    def full_record(self) -> dict[str, Any]:
        """hubedit.json as `save` writes it: `record` with the schema version, each site's rank and norm."""
        sites = {m: {"rank": pair.rank, "norm": pair.norm()} for m, pair in self.pairs.items()}
        full = {**self.record, "schema_version": SCHEMA, "adapter": {"rank": self.rank, "sites": sites}}
        if self.facts:
            text = dump_facts(self.facts).encode()
            full["facts"] = {"count": len(self.facts), "sha256": hashlib.sha256(text).hexdigest()}
        return full


def silent(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record without the facts that its steps edited again."""
    steps = [{k: v for k, v in step.items() if k != "replaced"} for step in record.get("steps", ())]
    return {**record, "steps": steps} if steps else dict(record)


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    text = json.dumps(_finite(data), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    path.write_bytes(f"{text}\n".encode())


def _unpad(path: Path, pairs: Mapping[str, Pair], record: Mapping[str, Any]) -> dict[str, Pair]:
    """The factors without their padding, as the record says; the padding must be zero."""
    try:
        ranks = {module: int(record["adapter"]["sites"][module]["rank"]) for module in pairs}
    except (KeyError, TypeError, ValueError) as error:
        raise PatchError(f"{path} does not list the adapter's modules ({error})", _AGAIN) from error
    cut: dict[str, Pair] = {}
    for module, pair in pairs.items():
        rank = ranks[module]
        if not 0 <= rank <= pair.rank or pair.A[rank:].any() or pair.B[:, rank:].any():
            raise PatchError(
                f"{path} gives {module} rank {rank}, but its tensors have more",
                "the adapter was changed after it was made; make it again with hubedit apply",
            )
        cut[module] = Pair(pair.B[:, :rank], pair.A[:rank])
    return cut


def read_facts(path: Path) -> tuple[Fact, ...]:
    """The facts of a facts.jsonl; none where the patch was saved without them. Raises PatchError."""
    if not path.is_file():
        return ()
    facts: list[Fact] = []
    try:
        # not splitlines(): a fact may hold a character that Unicode counts as the end of a line
        for line in path.read_text(encoding="utf-8").split("\n"):
            if line.strip():
                data = json.loads(line)
                if not isinstance(data, dict):
                    raise ValueError("a line is no JSON object")
                facts.append(from_record(data))
    except (ValueError, RecursionError, AttributeError) as error:
        raise PatchError(f"{path}:{len(facts) + 1}: not JSON Lines: {error}", _AGAIN) from error
    except FactsError as error:
        raise PatchError(f"{path}:{len(facts) + 1}: {error.hint or error.message}", _AGAIN) from error
    return tuple(facts)


def _finite(value: Any) -> Any:
    """JSON data in which NaN and infinity, which JSON lacks, are null."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
