"""The patches of a checkpoint, in order, each with the tensors that it changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hubedit.checkpoint.delta import FLOATS
from hubedit.checkpoint.digest import Digest, digest
from hubedit.checkpoint.merge_record import (
    PATCHES,
    Entry,
    Record,
    Touched,
    facts_count,
)
from hubedit.checkpoint.read import Checkpoint
from hubedit.errors import CheckpointError, PatchError
from hubedit.model.families import FAMILIES
from hubedit.patch import Patch
from hubedit.patch.base import Claim, not_the_base, unsaid
from hubedit.patch.identity import patch_id
from hubedit.patch.names import short
from hubedit.patch.pair import Pair
from hubedit.patch.same_base import is_foreign
from hubedit.weights.blocks import side_by_side, tensor_digest

_KEPT = ("README.md", "report.json")


@dataclass(frozen=True)
class Member:
    """`modules`: tensor name -> the patch's module; `files`: its card, report and plots, by name.

    `id`: see `hubedit.checkpoint.merge_record.Entry`.
    """

    patch: Patch
    id: str
    name: str
    modules: Mapping[str, str]
    files: Mapping[str, bytes] = field(default_factory=dict)

    def entry(self) -> Entry:
        """What the merged model's record says of it."""
        patch = self.patch
        tensors = tuple(sorted(self.modules))
        return Entry(self.id, self.name, short(patch.base), patch.commit, facts_count(patch), tensors)

    def factor(self, tensor: str) -> Pair | None:
        """Its change of a tensor, or None."""
        return self.patch.pairs[self.modules[tensor]] if tensor in self.modules else None


@dataclass(frozen=True)
class Stack:
    """`record` is None and `members` is empty for a model that hubedit has not merged."""

    checkpoint: Checkpoint
    record: Record | None
    members: tuple[Member, ...]

    @classmethod
    def open(cls, folder: Path) -> Stack:
        """Reads the checkpoint, and where hubedit merged it, its record and patches.

        Raises CheckpointError, PatchError for whatever is missing, damaged or does not belong together.
        """
        return cls.over(Checkpoint.open(folder), folder)

    @classmethod
    def over(cls, checkpoint: Checkpoint, folder: Path) -> Stack:
        """The record and the patches in a folder, of a checkpoint whose weights may lie elsewhere.

        Raises CheckpointError, PatchError.
        """
        record = Record.read(folder)
        if record is None:
            return cls(checkpoint, None, ())
        members = []
        for number, entry in enumerate(record.patches, 1):
            path = folder / PATCHES / str(number)
            found = member(checkpoint, Patch.load(path), entry.name, files_beside(path))
            if found.id != entry.id or set(found.modules) != set(entry.tensors):
                raise CheckpointError(
                    f"{path} is not the patch {entry.id} that was merged", "merge again from the base"
                )
            members.append(found)
        return cls(checkpoint, record, tuple(members))

    def changed(self) -> list[str]:
        """Touched tensors that are not what the merge wrote. Raises CheckpointError."""
        touched = self.record.tensors if self.record else {}
        entries = {name: self.checkpoint.entry(name) for name in touched}
        alike = [name for name, entry in entries.items() if entry.dtype == touched[name].dtype]
        hashes = side_by_side(tensor_digest, (entries[name] for name in alike))
        same = {name for name, found in zip(alike, hashes, strict=True) if found == touched[name].sha256}
        return [name for name in touched if name not in same]

    def check_current(self) -> None:
        """Raises CheckpointError where a touched tensor is not what the merge wrote."""
        for name in self.changed():
            raise CheckpointError(
                f"{name} of {self.checkpoint.folder} was changed after the merge",
                "merge again from the base; nothing was changed now",
            )

    def touch(self, new: Member) -> dict[str, Touched]:
        """The base's part of the record for the tensors that a new patch changes and no older one does.

        Raises PatchError where the weights are not those that the patch was made for.
        """
        found: dict[str, Touched] = {}
        entries = [self.checkpoint.entry(name) for name in new.modules]
        for entry, now in zip(entries, side_by_side(digest, entries), strict=True):
            name, module = entry.name, new.modules[entry.name]
            if not now.finite:
                raise CheckpointError(f"{name} of {self.checkpoint.folder} holds NaN or infinity")
            self._check_base(new.patch, module, name, now)
            if self.record is not None and name in self.record.tensors:
                continue
            rows, columns = entry.shape
            found[name] = Touched(
                module,
                new.patch.fan_in_fan_out,
                (rows, columns),
                entry.file.name,
                entry.dtype,
                now.stored,
                base_values=now.values,
            )
        return found

    def _check_base(self, patch: Patch, module: str, name: str, now: Digest) -> None:
        """A patch fits the weights as they are now, the base's, or those of an older patch of the stack."""
        claim = Claim.of(patch.record)
        known = now.known(claim.dtype)
        if self.record is not None and name in self.record.tensors:
            base = self.record.tensors[name]
            known |= {base.base_sha256, base.base_values.get("exact"), base.base_values.get(claim.dtype)}
        for each in self.members:
            if name in each.modules:
                known.add(Claim.of(each.patch.record).hashes.get(each.modules[name]))
        verdict = claim.judge(module, known)
        if verdict == "unsaid":
            raise unsaid(module)
        if verdict == "other":
            made_for = f"{patch.base}{f'@{patch.commit}' if patch.commit else ''}"
            raise not_the_base(
                str(self.checkpoint.folder), module, f"merge into {made_for or 'its base model'} (--model)"
            )


def member(
    checkpoint: Checkpoint, patch: Patch, name: str = "", files: Mapping[str, bytes] | None = None
) -> Member:
    """A patch with the tensors of the checkpoint that it changes. Raises CheckpointError where it cannot."""
    patch = oriented(checkpoint, patch)
    modules: dict[str, str] = {}
    for module, pair in patch.pairs.items():
        tensor = checkpoint.module_tensor(module, pair.shape, patch.fan_in_fan_out)
        if checkpoint.entry(tensor).dtype not in FLOATS:
            raise CheckpointError(
                f"{tensor} is stored as {checkpoint.entry(tensor).dtype}; quantised weights cannot be merged",
                "merge into the unquantised checkpoint, then quantise the result",
            )
        if tensor in modules:
            raise CheckpointError(f"{modules[tensor]} and {module} of the patch mean one tensor, {tensor}")
        modules[tensor] = module
    return Member(patch, patch_id(patch)[:12], name, modules, files or {})


def oriented(checkpoint: Checkpoint, patch: Patch) -> Patch:
    """The patch with its weights' orientation taken from the base where the adapter of another tool is
    wrong about it: PEFT overrides `fan_in_fan_out` for GPT-2's Conv1D when it loads one, and a square
    weight would be merged transposed."""
    family = FAMILIES.get(str(checkpoint.config.get("model_type")))
    if family is None or not is_foreign(patch) or family.conv1d == patch.fan_in_fan_out:
        return patch
    return replace(patch, fan_in_fan_out=family.conv1d)


def files_beside(path: Path) -> dict[str, bytes]:
    """A patch folder's card, report and plots. Raises PatchError when one cannot be read."""
    names = [name for name in _KEPT if (path / name).is_file()]
    names += sorted(f"plots/{file.name}" for file in (path / "plots").glob("*.png") if file.is_file())
    try:
        return {name: (path / name).read_bytes() for name in names}
    except OSError as error:
        raise PatchError(f"{path} cannot be read: {error.strerror or error}") from error


def factors(members: Sequence[Member], tensor: str) -> tuple[Pair, ...]:
    """The changes of one tensor, in the order of the stack."""
    found = (each.factor(tensor) for each in members)
    return tuple(factor for factor in found if factor is not None)
