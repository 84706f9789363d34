"""Names, shapes and files of a repository's tensors, from the headers alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubedit.checkpoint.header import Header, TensorEntry
from hubedit.checkpoint.read import Checkpoint
from hubedit.hub.account import patiently
from hubedit.hub.contents import Base

if TYPE_CHECKING:
    from huggingface_hub import HfApi


def layout(api: HfApi, base: Base, work: Path) -> Checkpoint:
    """The base's checkpoint as if its files lay in `work`, without its configuration. Raises HubError."""
    found: Any = patiently(
        lambda: api.get_safetensors_metadata(base.repo, revision=base.commit), base.repo, base.commit
    )
    headers: dict[str, Header] = {}
    tensors: dict[str, TensorEntry] = {}
    for name, file in found.files_metadata.items():
        place = work / name
        inside = {
            tensor: TensorEntry(tensor, place, info.dtype, tuple(info.shape), *info.data_offsets)
            for tensor, info in file.tensors.items()
        }
        headers[name] = Header(place, inside, file.metadata)
        tensors |= inside
    return Checkpoint(work, headers, tensors, {})
