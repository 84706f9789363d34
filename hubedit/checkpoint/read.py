"""A checkpoint on disk, read tensor by tensor without loading the model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from hubedit.errors import CheckpointError
from hubedit.model.fetch import EMPTY, check_alone, shards
from hubedit.model.owner import owners
from hubedit.model.tensor_names import alike, is_embeddings, is_head, is_tied, renamed, same_part
from hubedit.patch.names import dimensions
from hubedit.weights.blocks import tensor_digest
from hubedit.weights.header import AGAIN, Header, TensorEntry, read_header

if TYPE_CHECKING:
    from torch import Tensor

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
CONFIG = "config.json"
_WRITE = f"{AGAIN}, or write the model again with save_pretrained"


@dataclass(frozen=True)
class Checkpoint:
    """`headers`: by file name, sorted; `tensors`: of all files, by name. Files are not held open.

    `repeated`: tensors that more than one file holds -> the file whose copy counts; the others are in
    neither mapping.
    """

    folder: Path
    headers: Mapping[str, Header]
    tensors: Mapping[str, TensorEntry]
    config: Mapping[str, Any]
    repeated: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path) -> Checkpoint:
        """Reads config.json, the index and all headers. Raises CheckpointError for what cannot be trusted.

        As transformers does: `model.safetensors` where it is there, else the shards of the index. A head
        beside the embeddings that it is tied to may have other values here, which loading refuses: no
        patch changes either of the two (`module_tensor`), so both stay as they are.
        """
        check_alone(folder, str(folder), CheckpointError)
        config = read_json(folder / CONFIG)
        names, index = _files(folder)
        headers = {name: read_header(folder / name) for name in names}
        _check_index(folder, headers, index)
        taken, repeated = owners(str(folder), headers, index, CheckpointError)
        headers = {
            name: replace(header, tensors={t: e for t, e in header.tensors.items() if taken[t] == name})
            for name, header in headers.items()
        }
        tensors = {tensor: headers[name].tensors[tensor] for tensor, name in taken.items()}
        return cls(
            folder,
            MappingProxyType(headers),
            MappingProxyType(tensors),
            MappingProxyType(config),
            MappingProxyType({tensor: taken[tensor] for tensor in repeated}),
        )

    @property
    def tied(self) -> bool:
        """Whether loaders take the head from the embeddings."""
        return is_tied(self.config, self.tensors)

    @property
    def notes(self) -> tuple[str, ...]:
        """What its reader should know, one line each."""
        if not self.repeated:
            return ()
        tensor, file = min(self.repeated.items())
        count = f"{len(self.repeated)} tensors are" if len(self.repeated) > 1 else "a tensor is"
        which = "the first, " if len(self.repeated) > 1 else ""
        return (f"{count} in two shards of {self.folder}: {which}{tensor} is taken from {file}",)

    def named_as(self, other: Checkpoint) -> Checkpoint:
        """The same tensors under the names that the other checkpoint has for them, to compare the two."""
        return replace(self, tensors=MappingProxyType(renamed(self.tensors, other.tensors)))

    def read(self, name: str) -> Tensor:
        """A tensor in its stored dtype and shape, on the CPU. Raises CheckpointError."""
        from hubedit.checkpoint.tensors import read_tensor

        return read_tensor(self.entry(name))

    def sha256(self, name: str) -> str:
        """sha256 (hex) of a tensor's bytes as they are stored. Raises CheckpointError."""
        return tensor_digest(self.entry(name))

    def entry(self, name: str) -> TensorEntry:
        """Raises CheckpointError for a tensor that is not there."""
        try:
            return self.tensors[name]
        except KeyError:
            raise CheckpointError(f"{self.folder} has no tensor {name}") from None

    def module_tensor(self, module: str, shape: tuple[int, int], fan_in_fan_out: bool = False) -> str:
        """Name of the one tensor that holds a module's weight.

        `module`: as adapters name it, e.g. "transformer.h.0.mlp.c_proj"; `shape`: (d_out, d_in);
        `fan_in_fan_out`: stored (d_in, d_out), as GPT-2 does. Prefixes that mean the same part may differ
        ("h.0...", "language_model.model.layers..."), the rest may not. Raises CheckpointError where no
        tensor, or more than one, can be meant, and for weights whose change loaders would drop.
        """
        if is_embeddings(module):
            raise CheckpointError(
                f"{module} is a table of embeddings, which plain LoRA factors do not change",
                "train the adapter without it, or merge the adapter with PEFT",
            )
        if is_head(module) and self.tied:
            raise CheckpointError(
                f"{module} of {self.folder} is tied to the embeddings (tie_word_embeddings), "
                "so loaders would drop a change of the head alone",
                "use the adapter unmerged, with PEFT; or untie the head first: save the base with a "
                "lm_head.weight of its own and tie_word_embeddings false",
            )
        found = self._named(module)
        stored = shape[::-1] if fan_in_fan_out else shape
        fitting = [name for name in found if self.tensors[name].shape == stored]
        if len(fitting) == 1:
            return fitting[0]
        if not found:
            other = alike(module, self.tensors)
            raise CheckpointError(
                f"{self.folder} has no tensor for module {module}"
                + (f"; {other} is of another part of the model" if other else ""),
                "the patch was made for another model: hubedit inspect names its base",
            )
        if empty := [name for name in found if not self.tensors[name].nbytes]:
            raise CheckpointError(f"{empty[0]} of {self.folder} is empty", EMPTY)
        if not fitting:
            raise CheckpointError(
                f"{found[0]} of {self.folder} is {dimensions(self.tensors[found[0]].shape)}, "
                f"but the patch needs {dimensions(stored)}",
                "the patch was made for another model: hubedit inspect names its base",
            )
        raise CheckpointError(
            f"module {module} could be {fitting[0]} or {fitting[1]} of {self.folder}",
            "such a checkpoint cannot be merged without loading it; use PEFT",
        )

    def _named(self, module: str) -> list[str]:
        """Tensors whose names mean the module's weight; one of that very name alone."""
        own = f"{module}.weight"
        if own in self.tensors:
            return [own]
        return sorted(name for name in self.tensors if same_part(name) == same_part(own))


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object. Raises CheckpointError when the file is missing or damaged."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{file} is missing", "give the folder of a transformers model with safetensors weights"
        ) from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is not JSON: {str(error)[:80]}", AGAIN) from error
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error.strerror or error}") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{file} does not hold a JSON object", AGAIN)
    return data


def _files(folder: Path) -> tuple[list[str], dict[str, str]]:
    """The weight files, sorted, and which file the index gives each tensor (empty without an index)."""
    if (folder / SINGLE).is_file():
        return [SINGLE], {}
    index = folder / INDEX
    if not index.is_file():
        raise CheckpointError(
            f"{folder} has no safetensors weights ({SINGLE} or {INDEX})",
            "pickle weights (.bin) are not read; convert them with save_pretrained",
        )
    owner = read_json(index).get("weight_map")
    if not isinstance(owner, dict) or not owner or not all(isinstance(v, str) for v in owner.values()):
        raise CheckpointError(f"{index} has no weight_map from tensors to files", AGAIN)
    names = shards({"weight_map": owner})
    if names is None:
        wrong = next(name for name in sorted(owner.values()) if shards({"weight_map": {"": name}}) is None)
        raise CheckpointError(f"{index} names {wrong[:100]!r}, which is no file beside it", AGAIN)
    for name in names:
        try:
            there = (folder / name).is_file()
        except OSError:  # a name that is too long
            there = False
        if not there:
            raise CheckpointError(f"{folder} lacks the shard {name[:100]}", AGAIN)
    return names, owner


def _check_index(folder: Path, headers: Mapping[str, Header], index: Mapping[str, str]) -> None:
    """Raises CheckpointError for an index that names a file without the tensor.

    Loading passes over it; what reads or writes single tensors must know where they are.
    """
    for tensor, name in sorted(index.items()):
        if tensor in headers[name].tensors:
            continue
        own = [file for file, header in headers.items() if tensor in header.tensors]
        what = (
            f"tensor {tensor} is in {own[-1]}, but the index says otherwise"
            if own
            else f"tensor {tensor} of the index is not in {name}"
        )
        raise CheckpointError(f"{folder}: {what}", _WRITE)
