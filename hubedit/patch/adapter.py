"""The two files that PEFT, transformers, vLLM and llama.cpp read: adapter_config.json and the tensors.

One uniform rank for every module, zero-padded (a converter with one global alpha scales differing ranks
wrongly), scaling 1, float32. What those readers accept in silence and get wrong is refused here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save_file

from hubedit.errors import PatchError
from hubedit.floats import STORED, Array
from hubedit.patch.pair import Pair

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"

# what vLLM takes as max_lora_rank
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
MOST_RANK = _RANKS[-1]
_PREFIX = "base_model.model."
_A = ".lora_A.weight"
_B = ".lora_B.weight"


def uniform_rank(ranks: Mapping[str, int]) -> int:
    """The one rank that all modules are padded to: the next that vLLM accepts, or the largest itself."""
    largest = max(ranks.values())
    return next((rank for rank in _RANKS if rank >= largest), largest)


def config(base: str, commit: str, modules: list[str], rank: int, fan_in_fan_out: bool) -> dict[str, Any]:
    """Content of adapter_config.json. An empty commit (a local base) becomes null."""
    return {
        "alpha_pattern": {},
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": fan_in_fan_out,
        "inference_mode": True,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": rank,
        "rank_pattern": {},
        "revision": commit or None,
        "target_modules": sorted(modules),
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }


def write_weights(pairs: Mapping[str, Pair], rank: int, path: Path) -> None:
    """Writes the tensors, padded to `rank`. Raises OSError where the disk refuses."""
    tensors: dict[str, Array] = {}
    for module, pair in pairs.items():
        padded = pair.pad(rank)
        for ending, half in ((_A, padded.A), (_B, padded.B)):
            tensors[f"{_PREFIX}{module}{ending}"] = half
    try:
        path.touch()
        mode = path.stat().st_mode & 0o777
        save_file(tensors, path, metadata={"format": "pt"})
        path.chmod(mode)  # safetensors writes for the owner alone, whatever the umask says
    except SafetensorError as error:
        # it reports a full disk as an error of its own
        raise OSError(str(error)) from error


def read_config(path: Path) -> dict[str, Any]:
    """adapter_config.json, checked to be an adapter that every reader scales the same way."""
    data = read_json(path)
    if data.get("peft_type") != "LORA":
        raise PatchError(f"{path}: peft_type is {data.get('peft_type')!r}, not 'LORA'", _REWRITE)
    rank, alpha = data.get("r"), data.get("lora_alpha")
    if type(rank) is not int or rank < 1:
        raise PatchError(f"{path}: r is {rank!r}, not a positive integer", _REWRITE)
    if alpha != rank:
        raise PatchError(f"{path}: lora_alpha is {alpha!r} but r is {rank}; a patch has scaling 1", _REWRITE)
    for key in ("rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "lora_bias", "modules_to_save"):
        if data.get(key):
            raise PatchError(f"{path}: {key} is set; a patch does not use it", _REWRITE)
    modules = data.get("target_modules")
    if not isinstance(modules, list) or not modules or not all(isinstance(m, str) for m in modules):
        raise PatchError(f"{path}: target_modules is not a list of module paths", _REWRITE)
    if not isinstance(data.get("base_model_name_or_path"), str):
        raise PatchError(f"{path}: base_model_name_or_path is missing", _REWRITE)
    if not isinstance(data.get("revision"), str | None):
        raise PatchError(f"{path}: revision is no name of a commit", _REWRITE)
    return data


def read_weights(path: Path, modules: list[str], rank: int) -> dict[str, Pair]:
    """Module path -> factors (d_out, r), (r, d_in), checked against the configuration."""
    halves: dict[str, dict[str, Array]] = {module: {} for module in sorted(modules)}
    for name, (dtype, tensor) in read_tensors(path, _REWRITE).items():
        module, half = _parse(path, name)
        if module not in halves:
            raise PatchError(
                f"{path}: {module} has tensors but is not in target_modules; loaders would drop it", _REWRITE
            )
        if dtype != "F32":
            raise PatchError(f"{path}: {name} is {dtype}, not F32", _REWRITE)
        if tensor.ndim != 2 or tensor.shape[0 if half == "A" else 1] != rank:
            raise PatchError(f"{path}: {name} has shape {tensor.shape}, but r is {rank}", _REWRITE)
        if not np.isfinite(tensor).all():
            raise PatchError(f"{path}: {name} holds NaN or infinity", _REWRITE)
        halves[module][half] = tensor
    for module, found in halves.items():
        for half in ("A", "B"):
            if half not in found:
                raise PatchError(f"{path}: {module} has no lora_{half} tensor", _REWRITE)
    return {module: Pair(found["B"], found["A"]) for module, found in halves.items()}


def read_json(path: Path) -> dict[str, Any]:
    """One JSON object. Raises PatchError when the file is missing or damaged."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        hint = "check that the path is a patch that hubedit wrote"
        if path.name != CONFIG and (path.parent / CONFIG).is_file():
            hint = "adapters of other tools can be merged, composed, inspected and compared (diff), no more"
        raise PatchError(f"{path} is missing", hint) from None
    except (ValueError, RecursionError) as error:
        raise PatchError(f"{path} is not JSON: {error}", _REWRITE) from error
    except OSError as error:
        raise PatchError(f"{path} cannot be read: {error.strerror}") from error
    if not isinstance(data, dict):
        raise PatchError(f"{path} does not hold a JSON object", _REWRITE)
    return data


_REWRITE = "the file was changed or damaged; make the patch again with hubedit apply"


def read_tensors(path: Path, damaged: str) -> dict[str, tuple[str, Array]]:
    """Name -> (dtype, stored numbers); of a dtype that numpy cannot hold, its bytes. `damaged`: a hint.

    Raises PatchError.
    """
    if not path.is_file():
        raise PatchError(f"{path} is missing", "check that the path is a patch or a PEFT LoRA adapter")
    unpack: Callable[[bytes], list[tuple[str, dict[str, Any]]]] = deserialize
    try:
        found = unpack(path.read_bytes())
    except (SafetensorError, OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise PatchError(f"{path} cannot be read: {reason}", damaged) from error
    tensors: dict[str, tuple[str, Array]] = {}
    for name, tensor in found:
        kind = STORED.get(tensor["dtype"])
        values: Array = np.frombuffer(tensor["data"], kind or np.uint8)
        tensors[name] = tensor["dtype"], values.reshape(tensor["shape"]) if kind else values
    return dict(sorted(tensors.items()))


def _parse(path: Path, name: str) -> tuple[str, str]:
    """(module path, "A" or "B") of a tensor's name."""
    for half, ending in (("A", _A), ("B", _B)):
        if name.startswith(_PREFIX) and name.endswith(ending):
            return name[len(_PREFIX) : -len(ending)], half
    raise PatchError(
        f"{path}: {name} is no LoRA tensor of a patch; its name must be {_PREFIX}<module>{_A} or {_B}",
        _REWRITE,
    )
