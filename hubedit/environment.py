"""Where numbers were made: packages, device, memory, and names that hold no path of this machine."""

from __future__ import annotations

import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, version

import torch

import hubedit
from hubedit.model.editable import EditableModel

_PACKAGES = ("torch", "transformers", "tokenizers", "peft", "safetensors", "huggingface_hub", "numpy")
# a path that leads out of the current folder
_OUTSIDE = re.compile(r"[/~]|\.\.([/\\]|$)|[A-Za-z]:[\\/]")


def base_name(em: EditableModel) -> str:
    """How records and cards call the base: the Hub's name, or the name of the local folder."""
    return em.ref if em.commit else em.path.resolve().name


def portable(word: str) -> str:
    """A word of the command line without the folders of this machine that stand before the last name."""
    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    if not _OUTSIDE.match(value):
        return word
    last = re.split(r"[/\\]", value.rstrip("/\\"))[-1]
    return f"{option}{equals}{last}"


def versions() -> dict[str, str]:
    """Versions of Python and of every package that the numbers depend on."""
    found = {"hubedit": hubedit.__version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def device_name(device: torch.device) -> str:
    """`cpu`, `mps`, or `cuda (NVIDIA H100 ...)`."""
    if device.type != "cuda":
        return device.type
    return f"cuda ({torch.cuda.get_device_name(device)})"


def peak_memory(device: torch.device) -> dict[str, int]:
    """Largest memory so far in bytes: of this process ("process"), and of its GPU tensors ("device")."""
    peak: dict[str, int] = {}
    if sys.platform != "win32":
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak["process"] = used if sys.platform == "darwin" else used * 1024
    if device.type == "cuda":
        peak["device"] = torch.cuda.max_memory_allocated(device)
    return peak
