"""Which copy of a tensor counts, where a model stores more than one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hubedit.errors import HubEditError
from hubedit.model.names import is_head, is_words
from hubedit.weights.blocks import tensor_digest
from hubedit.weights.header import AGAIN, Header, TensorEntry


def owners(
    folder: str, headers: Mapping[str, Header], index: Mapping[str, str], error: type[HubEditError]
) -> tuple[dict[str, str], list[str]]:
    """Every tensor -> the file whose copy counts, and the tensors that more than one file holds.

    `folder`: as messages name it; `headers`: by file name, sorted; `index`: tensor -> the file that
    `model.safetensors.index.json` names, empty without one. Raises `error` where the index is wrong, and
    where readers would take different values: transformers reads all files in order, so that the last copy
    counts there, and others take the file that the index names.
    """
    holders: dict[str, list[str]] = {}
    for name, header in headers.items():
        for tensor in header.tensors:
            holders.setdefault(tensor, []).append(name)
    if missing := sorted(set(index) - set(holders)):
        raise error(f"{folder}: tensor {missing[0]} of the index is not in {index[missing[0]]}", AGAIN)
    found: dict[str, str] = {}
    for tensor, own in holders.items():
        last = own[-1]
        named = index.get(tensor, last)
        if named not in own:
            raise error(f"{folder}: tensor {tensor} is in {last}, but the index says otherwise", AGAIN)
        if named != last and not _same(headers[named].tensors[tensor], headers[last].tensors[tensor]):
            raise error(
                f"{folder}: tensor {tensor} has other values in {last} than in {named}, which the index "
                "names, and readers differ in which they take",
                f"remove it from {last}, or write the model again with save_pretrained",
            )
        found[tensor] = named
    return found, [tensor for tensor, own in holders.items() if len(own) > 1]


def check_head(
    folder: str, tensors: Mapping[str, TensorEntry], config: Mapping[str, Any], error: type[HubEditError]
) -> None:
    """Raises `error` where the configuration ties the head to the embeddings, and a head with other values is
    stored: transformers 5 takes that head, while its older versions, vLLM and mlx take the embeddings."""
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
        raise error(
            f"{folder}: {heads[0]} has other values than {words[0]}, to which the configuration ties it, and "
            "readers differ in which they take",
            "set tie_word_embeddings to false in config.json, or remove the head",
        )


def _same(one: TensorEntry, two: TensorEntry) -> bool:
    """Whether two copies hold the same bytes. Raises CheckpointError where one cannot be read."""
    alike = (one.dtype, one.shape) == (two.dtype, two.shape)
    return alike and tensor_digest(one) == tensor_digest(two)
