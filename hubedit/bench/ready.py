"""The configurations that come with the package: the tables of the IntAttn-Edit paper's supplement."""

from __future__ import annotations

from pathlib import Path

from hubedit.bench.configuration import Bench, read_bench
from hubedit.errors import ConfigError

_FOLDER = Path(__file__).parent / "configs"


def ready_names() -> tuple[str, ...]:
    """The names that `ready` takes."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.toml")))


def ready(name: str) -> Bench:
    """The configuration of a name, or of a file. Raises ConfigError that lists the names."""
    if name in ready_names():
        return read_bench(_FOLDER / f"{name}.toml")
    if Path(name).is_file():
        return read_bench(name)
    raise ConfigError(
        f"{name} is neither a file nor a ready configuration", f"ready ones: {', '.join(ready_names())}"
    )
