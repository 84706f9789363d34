"""`--max-memory`: how much of each device may be used, and a model spread over several of them."""

from __future__ import annotations

import atexit
import re
import shutil
from typing import Any

from hubedit.errors import ConfigError

_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_WEIGHTS = 0.7
"""Share of a GPU's limit that weights may take when a model is spread; the rest is for what is computed."""


def parse_memory(text: str) -> dict[int | str, int]:
    """Bytes by device, from "24GiB" (every GPU) or "0=20GiB,1=10GiB,cpu=60GiB" ("" gives nothing).

    The key "gpu" stands for every GPU. Raises ConfigError.
    """
    found: dict[int | str, int] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, equals, size = part.rpartition("=")
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]i?B)", size.strip(), re.IGNORECASE)
        device: int | str = int(name) if name.isdigit() else name.lower()
        known = isinstance(device, int) or device == "cpu" or not equals
        if match is None or not known or not float(match[1]):
            raise ConfigError(
                f"--max-memory does not understand {part!r}", "such as 24GiB, or 0=20GiB,1=20GiB,cpu=60GiB"
            )
        found[device if equals else "gpu"] = int(float(match[1]) * _UNITS[match[2].upper()])
    return found


def limit_gpus(limits: dict[int | str, int]) -> None:
    """Bounds what this process may take on each GPU; beyond, it runs out of memory as on a smaller one."""
    import torch

    for index, size in _gpus(limits).items():
        total = torch.cuda.get_device_properties(index).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, size / total), index)


def placement(limits: dict[int | str, int]) -> dict[str, Any]:
    """What `from_pretrained` needs to spread a model over the GPUs, the CPU and the disk (accelerate)."""
    import tempfile

    import torch

    gpus = _gpus(limits)
    if torch.cuda.is_available():
        unlimited = {n: torch.cuda.mem_get_info(n)[0] for n in range(torch.cuda.device_count())}
        room: dict[int | str, int] = {n: int(_WEIGHTS * gpus.get(n, free)) for n, free in unlimited.items()}
    else:
        room = {}
    if "cpu" in limits:
        room["cpu"] = limits["cpu"]
    elif not room:
        return {}
    # weights in safetensors are read from where they are; the folder is for those that are not, and it must
    # live as long as the model does
    folder = tempfile.mkdtemp(prefix="hubedit-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return {"device_map": "sequential", "max_memory": room, "offload_folder": folder}


def _gpus(limits: dict[int | str, int]) -> dict[int, int]:
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return {n: size for n in range(count) if (size := limits.get(n, limits.get("gpu", 0)))}
