"""The metadata of a model's card, as its author wrote it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any


def front_matter(folder: str | Path) -> Mapping[str, Any]:
    """The head of the card (README.md) in a model's folder; empty without one, or where it is damaged."""
    from huggingface_hub import metadata_load

    card = Path(folder) / "README.md"
    # huggingface_hub brings yaml; its types are another package
    damaged: type[Exception] = import_module("yaml").YAMLError
    try:
        found = metadata_load(card) if card.is_file() else None
    except (OSError, ValueError, damaged):
        return {}
    return found if isinstance(found, Mapping) else {}
