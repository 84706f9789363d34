"""Which stored tensor a module's weight is, and what else the names of tensors tell."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from hubedit.model.families import FAMILIES

Entry = TypeVar("Entry")

# what one part of a model is called by classes and versions of transformers, with a head and without, alone
# and inside a multimodal model; any other first word (`mtp.`, `vision_tower.`, `draft.`) is another part
_ROOTS = ("model.", "language_model.", "transformer.", "gpt_neox.")
# GPT-NeoX's head had another name
_HEADS = ("lm_head", "embed_out")
_EMBEDDINGS = ("embed_tokens", "embed_in", "wte", "wpe", "word_embeddings", "tok_embeddings")
# a module's path from its list of blocks on
_TAIL = re.compile(r"(?:^|\.)([A-Za-z_]\w*\.\d+\..+)$")
# masks, tables of angles and constants that older versions of transformers saved beside the weights
_BUFFERS = re.compile(
    r"(?:.*\.)?(?:(?:attn|attention|self_attn)\.(?:bias|masked_bias)|masked_bias|inv_freq"
    r"|rotary_emb\.[^.]+|rotary_pos_emb\.[^.]+)"
)


def same_part(name: str) -> str:
    """A module's or tensor's name without the first words that say nothing about which part it is.

    Two names mean one tensor where this is equal.
    """
    while root := next((root for root in _ROOTS if name.startswith(root)), ""):
        name = name[len(root) :]
    head, dot, rest = name.partition(".")
    return f"{_HEADS[0]}{dot}{rest}" if head in _HEADS else name


def renamed(tensors: Mapping[str, Entry], like: Iterable[str]) -> dict[str, Entry]:
    """The tensors under the names that `like` has for the same ones; any other keeps its own.

    The Hub's GPT-2 begins with `h.0.`, one that was trained on and saved with `transformer.h.0.`.
    """
    known = {same_part(name): name for name in like}
    made: dict[str, Entry] = {}
    for name, entry in tensors.items():
        other = known.get(same_part(name), name)
        made[name if other in tensors or other in made else other] = entry
    return made


def alike(module: str, tensors: Iterable[str]) -> str:
    """A tensor that ends like the module's weight and is of another part of the model; "" without one."""
    tail = _TAIL.search(module)
    if tail is None:
        return ""
    return min((name for name in tensors if f".{name}".endswith(f".{tail[1]}.weight")), default="")


def is_head(module: str) -> bool:
    """Whether a module is the head of the language model."""
    return same_part(module) == _HEADS[0]


def is_embeddings(module: str) -> bool:
    """Whether a module is a table of embeddings, of which plain LoRA factors change nothing."""
    return module.rpartition(".")[2] in _EMBEDDINGS


def is_buffer(tensor: str) -> bool:
    """Whether a tensor is no weight: the model computes it itself, or needs it exactly as it is."""
    return _BUFFERS.fullmatch(tensor) is not None


def is_words(tensor: str) -> bool:
    """Whether a tensor is the table of the tokens' embeddings, which a tied head shares."""
    module, _, kind = same_part(tensor).rpartition(".")
    return kind == "weight" and module in _EMBEDDINGS and module != "wpe"


def is_tied(config: Mapping[str, Any], tensors: Iterable[str]) -> bool:
    """Whether loaders take the head from the embeddings, whatever is stored as a head.

    By the configuration, else by the family's habit; in an unknown family by whether a head is stored.
    """
    text = config.get("text_config")
    for part in (config, text if isinstance(text, Mapping) else {}):
        if "tie_word_embeddings" in part:
            return bool(part["tie_word_embeddings"])
    family = FAMILIES.get(str(config.get("model_type")))
    return family.tied if family else not any(is_head(name.removesuffix(".weight")) for name in tensors)
