"""Names, shapes and files of a repository's tensors, from the headers alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubedit.checkpoint.read import Checkpoint, read_json
from hubedit.errors import HubError
from hubedit.hub.account import with_retries
from hubedit.hub.contents import Base
from hubedit.model.fetch import shards
from hubedit.weights.header import Header, TensorEntry

if TYPE_CHECKING:
    from huggingface_hub import HfApi


def layout(api: HfApi, base: Base, work: Path) -> Checkpoint:
    """The base's checkpoint as if its files lay in `work`. Raises HubError.

    Of two copies of a tensor it cannot be seen whether they are the same, so that such a one is refused.
    """
    found: Any = with_retries(
        lambda: api.get_safetensors_metadata(base.repo, revision=base.commit), base.repo, base.commit
    )
    headers: dict[str, Header] = {}
    tensors: dict[str, TensorEntry] = {}
    if shards({"weight_map": {name: name for name in found.files_metadata}}) is None:
        raise HubError(f"the index of {base.repo} names files that are not beside it", "name another base")
    for name, file in found.files_metadata.items():
        place = work / name
        inside = {
            tensor: TensorEntry(tensor, place, info.dtype, tuple(info.shape), *info.data_offsets)
            for tensor, info in file.tensors.items()
        }
        if twice := sorted(set(inside) & set(tensors)):
            raise HubError(
                f"{base.repo} has tensor {twice[0]} in two shards",
                "merge here, then push the folder: hubedit merge PATCH --out DIR; hubedit push DIR REPO",
            )
        headers[name] = Header(place, inside, file.metadata)
        tensors |= inside
    file = Path(
        with_retries(
            lambda: api.hf_hub_download(base.repo, "config.json", revision=base.commit),
            base.repo,
            base.commit,
            doing="download",
        )
    )
    return Checkpoint(work, headers, tensors, read_json(file))
