"""What a merged model takes over besides the weights: configuration, tokenizer, anything else."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hubedit.checkpoint.belongs import belongs, left_out
from hubedit.checkpoint.place import place
from hubedit.checkpoint.read import CONFIG, Checkpoint

CARD = "README.md"


def carry(source: Checkpoint, target: Path, own: frozenset[str]) -> list[str]:
    """Copies what else belongs to the model to `target`; returns what is left out, as `left_out` tells it.

    `own`: names at the root that are written otherwise. Links are followed. Raises OSError.
    """
    left: list[str] = []
    taken: list[str] = []
    for file in _files(source.folder):
        name = file.relative_to(source.folder)
        if name.parts[0] in own:
            continue
        if not file.is_file() or not belongs(name.as_posix()):
            left.append(name.as_posix())
            continue
        taken.append(name.as_posix())
        copy = target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        place(file, copy, "copy", hard=False)
    return left_out(left, taken)


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
