"""LoRA adapters that other tools wrote, read as a `Patch`; what PEFT would lose or add in silence is refused.

PEFT scales B A by lora_alpha / r (rsLoRA: / sqrt(r)), per module where rank_pattern or alpha_pattern names
it; here the scale goes into B, so that the result has scaling 1 like every patch. No model is needed.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hubedit.errors import PatchError
from hubedit.floats import STORED, Array, all_finite, widened
from hubedit.model.fetch import EMPTY
from hubedit.patch import adapter
from hubedit.patch.names import short
from hubedit.patch.pair import Factors, Pair
from hubedit.patch.targets import Targets, text_patterns
from hubedit.patch.value import RECORD, Patch

_PREFIX = "base_model.model."
_ENDINGS = {".lora_A.weight": "A", ".lora_B.weight": "B"}
# as the record names them
_NAMES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}
# PEFT's r and lora_alpha where the configuration gives none
_DEFAULT = 8
# as torch names the tensors of an adapter in memory; files leave the adapter's name out
_OTHER_NAME = re.compile(r"\.lora_[AB]\.([^.]+)\.weight$")
_COMMIT = re.compile(r"[0-9a-f]{40}")

# what makes an adapter more than W + scale B A, and the name its users know it by
_VARIANTS = {
    "use_dora": "DoRA",
    "lora_bias": "lora_bias",
    "modules_to_save": "modules_to_save",
    "use_qalora": "QA-LoRA",
    "alora_invocation_tokens": "activated LoRA (alora_invocation_tokens)",
    "trainable_token_indices": "trainable_token_indices",
    "layer_replication": "layer_replication",
    "target_parameters": "target_parameters",
    "use_bdlora": "block-diagonal LoRA",
    "arrow_config": "Arrow routing",
    "kasa_config": "KaSA",
    "velora_config": "VeLoRA",
    "monteclora_config": "MonteCLoRA",
    "megatron_config": "Megatron's parallel layers",
}
# known to PEFT and without effect on what a finished adapter computes
_NEUTRAL = frozenset(
    "alpha_pattern auto_mapping base_model_name_or_path bias corda_config ensure_weight_tying eva_config "
    "exclude_modules fan_in_fan_out inference_mode init_lora_weights layers_pattern layers_to_transform "
    "loftq_config lora_alpha lora_dropout lora_ga_config megatron_core peft_type peft_version "
    "qalora_group_size r rank_pattern revision runtime_config target_modules task_type use_rslora".split()
)
# the others change the base model's weights when they are loaded
_INITS = (None, True, False, "gaussian", "eva", "orthogonal")

_ONLY_LORA = "only plain LoRA (W + scale B A) can be read as a patch; merge the adapter with PEFT instead"
_DAMAGED = "the file was changed or damaged; get the adapter again"


def load_any(path: str | Path) -> Patch:
    """A hubedit patch, or any plain PEFT LoRA adapter, from its folder.

    A foreign adapter's record holds `foreign` (its configuration in short, sha256 of its tensors, and
    `doubts`: what the configuration names and no tensor belongs to) and no hashes of base weights: it does
    not say which they were. Raises PatchError naming what cannot be read exactly: DoRA, biases, embeddings,
    modules_to_save, other PEFT methods, tensors that no target module owns, pickled weights, damaged files.
    """
    path = Path(path)
    if not path.is_dir():
        raise PatchError(f"{path} is no patch folder", "give the folder of a patch or of a PEFT LoRA adapter")
    if not (path / adapter.CONFIG).is_file() and (path / "config.json").is_file():
        raise PatchError(f"{path} is a model, not a patch", "hubedit extract makes a patch from two models")
    if (path / RECORD).is_file():
        return Patch.load(path)
    config = adapter.read_json(path / adapter.CONFIG)
    where = path / adapter.CONFIG
    _check_plain(where, config)
    file = path / adapter.WEIGHTS
    if not file.is_file() and (path / "adapter_model.bin").is_file():
        raise PatchError(
            f"{path} has only pickled weights (adapter_model.bin), which can run code when read",
            "load it with PEFT and save it again with save_pretrained",
        )
    pairs, dtypes, doubts = _read(file, where, config)
    base, revision = config.get("base_model_name_or_path"), config.get("revision")
    name = base if isinstance(base, str) else ""
    commit = revision if isinstance(revision, str) and _COMMIT.fullmatch(revision) else ""
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    foreign = {
        "r": config.get("r", _DEFAULT),
        "lora_alpha": config.get("lora_alpha", _DEFAULT),
        "use_rslora": bool(config.get("use_rslora")),
        "dtype": sorted(dtypes),
        "peft_version": config.get("peft_version"),
        "sha256": digest,
        "doubts": doubts,
    }
    record = {"base": {"ref": short(name), "commit": commit}, "foreign": foreign}
    return Patch(Factors(pairs), record, name, commit, fan_in_fan_out=bool(config.get("fan_in_fan_out")))


def _check_plain(where: Path, config: Mapping[str, Any]) -> None:
    """Raises PatchError for every setting under which the adapter is more than W + scale B A."""
    kind = config.get("peft_type")
    if kind != "LORA":
        raise PatchError(f"{where}: peft_type is {kind!r}, not 'LORA'", _ONLY_LORA)
    for key, name in _VARIANTS.items():
        if config.get(key):
            raise PatchError(f"{where}: the adapter uses {name}", _ONLY_LORA)
    if config.get("bias", "none") not in (None, "none"):
        raise PatchError(f"{where}: bias is {config['bias']!r}; the adapter changes biases", _ONLY_LORA)
    init = config.get("init_lora_weights", True)
    if not isinstance(init, (str, bool, type(None))) or init not in _INITS:
        raise PatchError(
            f"{where}: init_lora_weights is {init!r}, which changes the base's weights too",
            "convert it to a plain LoRA with PEFT (path_initial_model_for_weight_conversion)",
        )
    for key, value in config.items():
        if value and key not in _NEUTRAL and key not in _VARIANTS:
            raise PatchError(f"{where}: {key} is set, and its effect is not known here", _ONLY_LORA)


def _read(file: Path, where: Path, config: Mapping[str, Any]) -> tuple[dict[str, Pair], set[str], list[str]]:
    """Module -> factors with the scale in B, the names of the types they are stored in, and doubts."""
    targets = Targets.of(where, config)
    scales = _Scales(where, config)
    halves: dict[str, dict[str, Array]] = {}
    dtypes: set[str] = set()
    for name, (dtype, tensor) in adapter.read_tensors(file, _DAMAGED).items():
        module, half = _parse(file, name)
        if not targets.own(module):
            raise PatchError(
                f"{file}: {module} has tensors but is not among target_modules; loaders drop it in silence",
                "correct target_modules in adapter_config.json, or remove the tensors",
            )
        if dtype not in STORED:
            raise PatchError(f"{file}: {name} is {dtype}, not a floating-point type", _ONLY_LORA)
        if not tensor.size:
            raise PatchError(f"{file}: {name} is empty", EMPTY)
        if tensor.ndim != 2:
            raise PatchError(f"{file}: {name} has shape {tensor.shape}, not that of a matrix", _DAMAGED)
        if not all_finite(tensor, dtype):
            raise PatchError(f"{file}: {name} holds NaN or infinity", _DAMAGED)
        halves.setdefault(module, {})[half] = widened(tensor, dtype)
        dtypes.add(_NAMES[dtype])
    if not halves:
        raise PatchError(f"{file} holds no LoRA tensors", _DAMAGED)
    pairs: dict[str, Pair] = {}
    for module, found in sorted(halves.items()):
        for half in ("A", "B"):
            if half not in found:
                raise PatchError(f"{file}: {module} has no lora_{half} tensor", _DAMAGED)
        a, b = found["A"], found["B"]
        rank, scale = scales.of(module)
        if a.shape[0] != rank or b.shape[1] != rank:
            shapes = f"lora_A {a.shape} and lora_B {b.shape}"
            raise PatchError(f"{file}: {module} has {shapes}, but the configuration says r {rank}", _DAMAGED)
        # one rounding to float32, whatever the scale
        with np.errstate(over="ignore"):  # what float32 cannot hold is refused as infinite
            pairs[module] = Pair(b.astype(np.float64) * scale, a)
    return pairs, dtypes, [*targets.idle(pairs), *scales.idle(pairs)]


class _Scales:
    """r and the scale of every module, as PEFT resolves them from the patterns."""

    def __init__(self, where: Path, config: Mapping[str, Any]) -> None:
        self.where = where
        self.rank = _rank(where, "r", config.get("r", _DEFAULT))
        self.alpha = _alpha(where, "lora_alpha", config.get("lora_alpha", _DEFAULT))
        self.ranks = text_patterns(where, "rank_pattern", config.get("rank_pattern"))
        self.alphas = text_patterns(where, "alpha_pattern", config.get("alpha_pattern"))
        self.rooted = bool(config.get("use_rslora"))

    def idle(self, modules: Iterable[str]) -> Iterator[str]:
        """Patterns that no module matches, which PEFT passes over in silence."""
        modules = list(modules)
        for key, patterns in (("rank_pattern", self.ranks), ("alpha_pattern", self.alphas)):
            for pattern, (text, _) in patterns.items():
                if not any(pattern.match(module) for module in modules):
                    yield f"{key} names {text!r}, which matches none of its modules"

    def of(self, module: str) -> tuple[int, float]:
        """(r, scale) of one module."""
        rank = _rank(self.where, "rank_pattern", _first(self.ranks, module, self.rank))
        alpha = _alpha(self.where, "alpha_pattern", _first(self.alphas, module, self.alpha))
        return rank, alpha / (math.sqrt(rank) if self.rooted else rank)


def _first(patterns: Mapping[re.Pattern[str], tuple[str, Any]], module: str, default: Any) -> Any:
    """The value of the first pattern that matches the end of the module's path, as PEFT looks it up."""
    return next((value for pattern, (_, value) in patterns.items() if pattern.match(module)), default)


def _rank(where: Path, key: str, value: Any) -> int:
    # JSON as Python reads it can hold integers beyond every float
    if type(value) is not int or not 1 <= value < 1 << 31:
        raise PatchError(f"{where}: {key} gives r {value!r:.40}, not a positive integer of 31 bits", _DAMAGED)
    return value


def _alpha(where: Path, key: str, value: Any) -> float:
    # JSON as Python reads it can hold integers beyond every float
    if type(value) not in (int, float) or not -1e30 < value < 1e30:
        raise PatchError(f"{where}: {key} gives lora_alpha {value!r}, not a number", _DAMAGED)
    return float(value)


def _parse(file: Path, name: str) -> tuple[str, str]:
    """(module path, "A" or "B") of a tensor's name."""
    if "lora_embedding_" in name:
        raise PatchError(f"{file}: {name} changes the embeddings", _ONLY_LORA)
    if "lora_magnitude_vector" in name:
        raise PatchError(f"{file}: {name} belongs to DoRA", _ONLY_LORA)
    if name.endswith(".base_layer.weight"):
        raise PatchError(
            f"{file}: {name} replaces a whole weight of the base",
            "save the adapter again with save_embedding_layers=False, if that weight was not trained",
        )
    for ending, half in _ENDINGS.items():
        module = name[len(_PREFIX) : -len(ending)]
        if name.startswith(_PREFIX) and name.endswith(ending) and module:
            return module, half
    if other := _OTHER_NAME.search(name):
        raise PatchError(
            f"{file}: {name} is saved under the adapter's name, {other[1]!r}, where loaders look for none",
            "save it with PEFT's save_pretrained, or take that word out of the tensors' names",
        )
    if not name.startswith(_PREFIX) and name.endswith(tuple(_ENDINGS)):
        raise PatchError(
            f"{file}: {name} does not begin with {_PREFIX}, so loaders pass over it",
            "save it with PEFT's save_pretrained, or put that before the tensors' names",
        )
    raise PatchError(
        f"{file}: {name} is no LoRA tensor ({_PREFIX}<module>.lora_A.weight or .lora_B.weight)",
        _ONLY_LORA,
    )
