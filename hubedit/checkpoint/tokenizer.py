"""tokenizer_config.json in a form that readers of transformers 4 load too.

transformers 5 writes a class of its own, which transformers 4, mlx-lm and llama.cpp's converter do not know,
and a list of further special tokens under a name that was a table before. What is written here is read alike
by transformers 4.57 and 5.0 to 5.24: the same ids, the same special tokens.
"""

from __future__ import annotations

import json

from hubedit.errors import CheckpointError

TOKENIZER = "tokenizer_config.json"
_NEW, _OLD = "TokenizersBackend", "PreTrainedTokenizerFast"


def readable(data: bytes) -> bytes | None:
    """The file's new content; None where every reader loads it as it is. Raises CheckpointError."""
    try:
        config = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{TOKENIZER} is not JSON: {str(error)[:80]}", "copy it again") from error
    if not isinstance(config, dict) or config.get("tokenizer_class") != _NEW:
        return None
    config["tokenizer_class"] = _OLD
    config.pop("backend", None)
    if isinstance(config.get("extra_special_tokens"), list):
        config.setdefault("additional_special_tokens", config.pop("extra_special_tokens"))
    return f"{json.dumps(config, indent=2, ensure_ascii=False)}\n".encode()
