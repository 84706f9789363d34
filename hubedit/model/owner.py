"""Which copy of a tensor counts, where a model stores more than one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from hubedit.errors import HubEditError, ModelError
from hubedit.floats import STORED, Array, widened
from hubedit.model.tensor_names import is_head, is_words
from hubedit.weights.blocks import blocks
from hubedit.weights.header import Header, TensorEntry

_ELEMENTS = 1 << 18


def owners(
    folder: str, headers: Mapping[str, Header], index: Mapping[str, str], error: type[HubEditError]
) -> tuple[dict[str, str], list[str]]:
    """Every tensor -> the file whose copy counts, and the tensors that more than one file holds.

    `folder`: as messages name it; `headers`: by file name, sorted; `index`: tensor -> the file that
    `model.safetensors.index.json` names, empty without one. transformers reads all files in order, so that
    the last copy counts there, and others take the file that the index names: raises `error` where the two
    copies have other values, and CheckpointError where one cannot be read. An index that names a file
    without the tensor leads no reader to another value.
    """
    holders: dict[str, list[str]] = {}
    for name, header in headers.items():
        for tensor in header.tensors:
            holders.setdefault(tensor, []).append(name)
    found: dict[str, str] = {}
    for tensor, own in holders.items():
        last = own[-1]
        named = index[tensor] if index.get(tensor) in own else last
        if named != last and not _same(headers[named].tensors[tensor], headers[last].tensors[tensor]):
            raise error(
                f"{folder}: tensor {tensor} has other values in {last} than in {named}, which the index "
                "names, and readers differ in which they take",
                f"remove it from {last}, or write the model again with save_pretrained",
            )
        found[tensor] = named
    return found, [tensor for tensor, own in holders.items() if len(own) > 1]


def check_head(model: str, tensors: Mapping[str, TensorEntry], config: Mapping[str, Any]) -> None:
    """Raises ModelError where the configuration ties the head to the embeddings, and a head with other values
    is stored: transformers 5 takes that head, while its older versions, vLLM and mlx take the embeddings.

    `model`: as messages name it. Raises CheckpointError where one of the two cannot be read.
    """
    text = config.get("text_config")
    said = [
        part["tie_word_embeddings"]
        for part in (config, text if isinstance(text, Mapping) else {})
        if "tie_word_embeddings" in part
    ]
    heads = [name for name in tensors if name.endswith(".weight") and is_head(name.removesuffix(".weight"))]
    words = [name for name in tensors if is_words(name)]
    if not said or not all(said) or len(heads) != 1 or len(words) != 1:
        return
    if not _same(tensors[heads[0]], tensors[words[0]]):
        raise ModelError(
            f"{model}: {heads[0]} has other values than {words[0]}, to which the configuration ties it, and "
            "readers differ in which they take",
            "set tie_word_embeddings to false in config.json, or remove the head; a model from the Hub in a "
            "copy of your own: hf download REPO --local-dir DIR",
        )


def _same(one: TensorEntry, two: TensorEntry) -> bool:
    """Whether two copies hold the same values, also in two types. Raises CheckpointError."""
    alike, floats = one.dtype == two.dtype, {one.dtype, two.dtype} <= set(STORED)
    if one.shape != two.shape or not (alike or floats):
        return False
    return all(
        (alike and a == b) or (floats and np.array_equal(_values(a, one), _values(b, two)))
        for a, b in zip(_pieces(one), _pieces(two), strict=True)
    )


def _pieces(entry: TensorEntry) -> Iterator[memoryview]:
    """A tensor's bytes in pieces, of equally many elements for every type of `STORED`."""
    return blocks(entry, _ELEMENTS * (STORED[entry.dtype].itemsize if entry.dtype in STORED else 1))


def _values(piece: memoryview, entry: TensorEntry) -> Array:
    return widened(np.frombuffer(piece, STORED[entry.dtype]), entry.dtype)
