"""hubedit: edit facts in Hugging Face causal language models, as PEFT LoRA adapters.

The names below are imported when they are first used, so that `import hubedit` (and with it
`hubedit --help`) does not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hubedit.config import EditConfig as EditConfig
    from hubedit.config import StatsConfig as StatsConfig
    from hubedit.config import TargetConfig as TargetConfig
    from hubedit.config import TraceConfig as TraceConfig
    from hubedit.errors import HubEditError as HubEditError
    from hubedit.facts.types import Fact as Fact
    from hubedit.facts.types import Probe as Probe
    from hubedit.linalg.lowrank import LowRank as LowRank
    from hubedit.patch import Patch as Patch

__version__ = "0.1.0"

_WHERE = {
    "EditConfig": "hubedit.config",
    "StatsConfig": "hubedit.config",
    "TargetConfig": "hubedit.config",
    "TraceConfig": "hubedit.config",
    "HubEditError": "hubedit.errors",
    "Fact": "hubedit.facts.types",
    "Probe": "hubedit.facts.types",
    "LowRank": "hubedit.linalg.lowrank",
    "Patch": "hubedit.patch",
}

__all__ = [
    "EditConfig",
    "Fact",
    "HubEditError",
    "LowRank",
    "Patch",
    "Probe",
    "StatsConfig",
    "TargetConfig",
    "TraceConfig",
    "__version__",
]


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module 'hubedit' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
