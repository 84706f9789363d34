"""What a merged model takes over besides the weights: configuration, tokenizer, anything else."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hubedit.checkpoint.place import place
from hubedit.checkpoint.read import CONFIG, Checkpoint

CARD = "README.md"
# other copies of the weights: they would still be those of the unedited model
_WEIGHTS = re.compile(
    r"(pytorch_model|consolidated|tf_model|flax_model|rust_model|model|adapter_model)[^/]*"
    r"\.(bin|pt|pth|h5|msgpack|ot|safetensors)|(model|pytorch_model|consolidated)[^/]*\.index\.json"
    r"|.*\.(gguf|onnx|onnx_data|mlmodel)"
)
_PRIVATE = re.compile(r"\.git|\.cache|\.ipynb_checkpoints|__pycache__")


def carry(source: Checkpoint, target: Path, own: frozenset[str]) -> list[str]:
    """Copies the folder's other files to `target`; returns those left out because they hold other weights.

    `own`: names at the root that are written otherwise. Links are followed; version control and caches
    stay behind. Raises OSError.
    """
    left: list[str] = []
    for file in _files(source.folder):
        name = file.relative_to(source.folder)
        if name.parts[0] in own or any(_PRIVATE.fullmatch(part) for part in name.parts):
            continue
        if not file.is_file() or _WEIGHTS.fullmatch(file.name):
            left.append(str(name))
            continue
        copy = target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        place(file, copy, "copy", hard=False)
    return left


def keep(source: Checkpoint, target: Path, own: frozenset[str]) -> None:
    """Gives `target`, which will replace the source, all of its other files; links stay links.

    Raises OSError.
    """
    for file in _files(source.folder):
        name = file.relative_to(source.folder)
        if name.parts[0] in own:
            continue
        copy = target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if file.is_symlink():
            os.symlink(os.readlink(file), copy)
        elif file.is_file():
            place(file, copy, "auto", hard=True)


def write_config(config: Mapping[str, Any], target: Path, dtype: str) -> None:
    """config.json that names another dtype, also in the parts of a composite model. Raises OSError."""
    text = json.dumps(_with_dtype(config, dtype, root=True), indent=2, ensure_ascii=False)
    (target / CONFIG).write_text(f"{text}\n", encoding="utf-8")


def _with_dtype(config: Mapping[str, Any], dtype: str, root: bool) -> dict[str, Any]:
    made = {
        key: _with_dtype(value, dtype, root=False)
        if key.endswith("_config") and isinstance(value, dict)
        else value
        for key, value in config.items()
    }
    names = [name for name in ("dtype", "torch_dtype") if name in made]
    for name in names or (["dtype"] if root else []):
        made[name] = dtype
    return made


def _files(folder: Path) -> Iterator[Path]:
    """Everything below a folder that is no folder, sorted; links to folders count as files."""
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink():
            yield from _files(path)
        else:
            yield path
