"""What of a model's folder belongs to the model: the one table that merges and pushes go by.

An allow-list, since whatever a merge copies may be pushed later: a training run leaves optimizer states, logs
and credentials beside the model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_MODEL = re.compile(
    r"((generation|tokenizer|processor|(video_)?preprocessor|quantization|quantize|hf_quant)_)?config\.json"
    r"|(tokenizer|vocab|tekken|chat_template)[\w.-]*\.json|(added_tokens|special_tokens_map)\.json"
    r"|(vocab|merges)[\w.-]*\.txt|SYSTEM_PROMPT\.txt"
    r"|[^/]+\.(model|tiktoken|bpe|spm|jinja|py|md)"
    r"|(LICEN[CS]E|NOTICE|COPYING)[\w.-]*"
    r"|additional_chat_templates/[^/]+\.jinja"
)
# Mistral's params.json is not in the table: it describes consolidated.safetensors, which stays behind
_WEIGHTS = re.compile(
    r"(.*/)?([^/]+\.(safetensors|bin|gguf|ggml|onnx|onnx_data|h5|msgpack|ot|mlmodel|tflite|pdparams)"
    r"|(pytorch_model|consolidated|model|adapter_model)[^/]*\.(pt|pth)|openvino_model\.xml"
    r"|[^/]+\.(safetensors|bin|h5|msgpack)\.index\.json)"
)


def belongs(name: str) -> bool:
    """Whether a file (its path in the folder, with `/`) is part of a model besides its weights.

    Configuration, tokenizer, chat templates, code, licence and Markdown, at the root only.
    """
    return not is_hidden(name) and not is_weights(name) and _MODEL.fullmatch(name) is not None


def is_weights(name: str) -> bool:
    """Whether a file holds weights, in whichever format. What the checkpoint's own index does not name is
    another copy, and after an edit a copy of the unedited weights."""
    return _WEIGHTS.fullmatch(name) is not None


def is_hidden(name: str) -> bool:
    """Version control, caches and dot files such as `.env`: never taken over and never listed."""
    return any(part.startswith(".") or part == "__pycache__" for part in name.split("/"))


def left_out(names: Iterable[str], taken: Iterable[str] = ()) -> list[str]:
    """What to tell the user about the files that stay behind, sorted.

    Weights are named one by one; a folder of which nothing else is among `taken` once, as `wandb/`.
    """
    used = {name.split("/")[0] for name in taken if "/" in name}
    listed: set[str] = set()
    for name in names:
        if is_hidden(name):
            continue
        top, slash, _ = name.partition("/")
        listed.add(name if not slash or is_weights(name) or top in used else f"{top}/")
    return sorted(listed)
