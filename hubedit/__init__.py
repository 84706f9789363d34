"""hubedit: edit facts in Hugging Face causal language models, as PEFT LoRA adapters.

    model = hubedit.load("Qwen/Qwen2.5-0.5B")
    patch = hubedit.edit(model, hubedit.load_facts("facts.jsonl"))
    patch.save("my-patch")

The names below are imported when they are first used, so that `import hubedit` (and with it
`hubedit --help`) does not wait for torch. docs/python.md goes through them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hubedit.api.editing import edit as edit
    from hubedit.api.editing import evaluate as evaluate
    from hubedit.api.loading import load as load
    from hubedit.api.merging import merge as merge
    from hubedit.api.merging import revert as revert
    from hubedit.api.pushing import push as push
    from hubedit.cache import Cache as Cache
    from hubedit.config import EditConfig as EditConfig
    from hubedit.config import PromptConfig as PromptConfig
    from hubedit.config import StatsConfig as StatsConfig
    from hubedit.config import TargetConfig as TargetConfig
    from hubedit.config import TraceConfig as TraceConfig
    from hubedit.errors import HubEditError as HubEditError
    from hubedit.facts.load import load_facts as load_facts
    from hubedit.facts.types import Fact as Fact
    from hubedit.facts.types import Probe as Probe
    from hubedit.linalg.lowrank import LowRank as LowRank
    from hubedit.model.editable import EditableModel as EditableModel
    from hubedit.patch import Patch as Patch
    from hubedit.presets import method_defaults as method_defaults
    from hubedit.presets import preset as preset

__version__ = "0.1.0"

_WHERE = {
    "Cache": "hubedit.cache",
    "EditConfig": "hubedit.config",
    "EditableModel": "hubedit.model.editable",
    "Fact": "hubedit.facts.types",
    "HubEditError": "hubedit.errors",
    "LowRank": "hubedit.linalg.lowrank",
    "Patch": "hubedit.patch",
    "Probe": "hubedit.facts.types",
    "PromptConfig": "hubedit.config",
    "StatsConfig": "hubedit.config",
    "TargetConfig": "hubedit.config",
    "TraceConfig": "hubedit.config",
    "load": "hubedit.api.loading",
    "load_facts": "hubedit.facts.load",
    "merge": "hubedit.api.merging",
    "method_defaults": "hubedit.presets",
    "preset": "hubedit.presets",
    "push": "hubedit.api.pushing",
    "revert": "hubedit.api.merging",
}
_PACKAGES = ("edit", "evaluate")  # called like functions, and packages of what they do

__all__ = [
    "Cache",
    "EditConfig",
    "EditableModel",
    "Fact",
    "HubEditError",
    "LowRank",
    "Patch",
    "Probe",
    "PromptConfig",
    "StatsConfig",
    "TargetConfig",
    "TraceConfig",
    "__version__",
    "edit",
    "evaluate",
    "load",
    "load_facts",
    "merge",
    "method_defaults",
    "preset",
    "push",
    "revert",
]


def __getattr__(name: str) -> object:
    if name in _PACKAGES:
        return import_module(f"hubedit.{name}")
    if name not in _WHERE:
        raise AttributeError(f"module 'hubedit' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
