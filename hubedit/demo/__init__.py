"""What `hubedit demo` edits: a bundled model with facts of its own, and facts of everyday for any model."""

from __future__ import annotations

from pathlib import Path

from hubedit.errors import HubEditError

_FOLDER = Path(__file__).parent


def model_path() -> Path:
    """The folder of the bundled model. Raises HubEditError when a file is missing."""
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        there(_FOLDER / name)
    return _FOLDER


def facts_path() -> Path:
    """The bundled edits. Raises HubEditError when they are missing."""
    return there(_FOLDER / "facts.jsonl")


def everyday_path() -> Path:
    """Facts that everybody knows, more than a demo needs. Raises HubEditError when they are missing."""
    return there(_FOLDER / "everyday.jsonl")


def there(file: Path) -> Path:
    """The file. Raises HubEditError where it is missing."""
    if not file.is_file():
        raise HubEditError(f"the bundled {file.name} is missing from {file.parent}", "install hubedit again")
    return file
