"""Loading a model that can be edited, from a local folder or the Hub."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from hubedit.errors import ConfigError, ModelError
from hubedit.model.families import Family, family_of
from hubedit.model.fetch import Source, check, find, identity
from hubedit.model.limits import limit_gpus, parse_memory, placement
from hubedit.model.reading import reading

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from hubedit.model.editable import EditableModel

_DTYPES = ("float32", "float16", "bfloat16")


def load(
    ref: str,
    *,
    device: str = "auto",
    dtype: str = "auto",
    trust_remote_code: bool = False,
    max_memory: str = "",
) -> EditableModel:
    """Loads a folder, `repo` or `repo@revision`, in evaluation mode and with gradients off.

    `device`: "auto" is the first of cuda, mps, cpu that is there. `dtype`: "auto" is the checkpoint's
    own, but on a CPU float32 or bfloat16 (`cpu_dtype`); or "float32", "float16",
    "bfloat16". `max_memory`: see `parse_memory`; a limit for one GPU also bounds
    what is computed beside the model, and with device "auto" a model that does not fit is spread over all
    GPUs, then the CPU, then the disk. Raises ModelError when the model cannot be found, read or
    edited, ConfigError for a device, dtype or limit that is not there.
    """
    if dtype != "auto" and dtype not in _DTYPES:
        raise ConfigError(f"unknown dtype {dtype!r}", f"one of: auto, {', '.join(_DTYPES)}")
    import torch

    place = pick_device(device)
    limits = parse_memory(max_memory)
    limit_gpus(limits)
    source = find(ref, code=trust_remote_code)
    config = check(source)
    family = family_of(SimpleNamespace(**config))
    with _quiet():
        tokenizer = _tokenizer(source, trust_remote_code)
        own = config.get("dtype", config.get("torch_dtype"))
        wanted = cpu_dtype(own) if dtype == "auto" and place.type == "cpu" else dtype
        spread = placement(limits) if limits and device == "auto" and "LOCAL_RANK" not in os.environ else {}
        model = _weights(source, family, wanted, trust_remote_code, spread)
    try:
        module: nn.Module = model  # whose methods have types
        if not spread:  # accelerate has put the weights where they belong
            module.to(place)
        module.eval()
        module.requires_grad_(False)
    except torch.OutOfMemoryError as error:
        raise ModelError(f"{source.ref} does not fit into the memory of {place}", "use device cpu") from error

    from hubedit.model.editable import EditableModel

    em = EditableModel(model, tokenizer, family, source.ref, source.commit, source.folder, identity(source))
    with reading(f"the files of {source.ref} do not go together"):
        _check_modules(em)
        _check_numbers(em)
    return em


def fast_bfloat16() -> bool:
    """Whether products in bfloat16 are at least 1.5 times as fast on this CPU as in float32."""
    import torch

    # in turns, and the fastest of several: other work on the machine must not decide
    fastest = {torch.float32: math.inf, torch.bfloat16: math.inf}
    for _ in range(8):
        for kind in fastest:
            a, b = torch.ones(256, 1024, dtype=kind), torch.ones(1024, 1024, dtype=kind)
            start = time.process_time()
            torch.mm(a, b)
            fastest[kind] = min(fastest[kind], time.process_time() - start)
    return 1.5 * fastest[torch.bfloat16] < fastest[torch.float32]


def cpu_dtype(own: object, fast: Callable[[], bool] = fast_bfloat16) -> str:
    """The type to compute in on a CPU: float32, but bfloat16 where the checkpoint's `own` is and its products
    are `fast`. Without such instructions half precision is up to a hundred times slower.
    """
    return "bfloat16" if str(own).endswith("bfloat16") and fast() else "float32"


def pick_device(name: str) -> torch.device:
    import torch

    # with several processes on a machine, each has a GPU of its own
    own = int(os.environ.get("LOCAL_RANK", "0"))
    if name in ("auto", "cuda") and own and torch.cuda.device_count() > own:
        return torch.device("cuda", own)
    if name == "auto":
        best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(best)
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"unknown device {name!r}", "one of: auto, cpu, cuda, cuda:1, mps") from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise ConfigError(f"device {name!r} is not supported", "one of: auto, cpu, cuda, cuda:1, mps")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"there is no device {name!r} here",
            f"{torch.cuda.device_count()} CUDA devices found; use --device auto or cpu",
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("there is no device 'mps' here", "use auto or cpu")
    return device


def _tokenizer(source: Source, trust: bool) -> PreTrainedTokenizerFast:
    from transformers import AutoTokenizer

    with reading(f"cannot load the tokenizer of {source.ref}", "a model needs its tokenizer.json"):
        tokenizer = AutoTokenizer.from_pretrained(
            source.folder, trust_remote_code=trust, local_files_only=True
        )
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(
            f"the tokenizer of {source.ref} gives no character offsets",
            "a fast one (tokenizer.json) is needed",
        )
    return cast("PreTrainedTokenizerFast", tokenizer)


def _weights(
    source: Source, family: Family, dtype: str, trust: bool, spread: dict[str, Any]
) -> PreTrainedModel:
    import torch
    import transformers

    auto: Any = getattr(transformers, family.loader)
    with reading(f"cannot load {source.ref}", "check that the folder is complete, or download it again"):
        model, info = auto.from_pretrained(
            source.folder,
            dtype="auto" if dtype == "auto" else getattr(torch, dtype),
            attn_implementation=family.attention,
            trust_remote_code=trust,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            **spread,
        )
    missing = sorted(info["missing_keys"])
    if family.linear_layers:  # which kernel computes them is nothing to say in the middle of a table
        logging.getLogger("transformers.integrations.hub_kernels").setLevel(logging.ERROR)
    if missing:  # transformers would fill them with random numbers
        raise ModelError(
            f"{source.ref} lacks {len(missing)} weights, the first is {missing[0]}",
            "download or copy it again",
        )
    return cast("PreTrainedModel", model)


def _check_modules(em: EditableModel) -> None:
    """A model whose code differs from the family's (remote code) must not fail halfway through an edit, nor
    one with settings that mean nothing."""
    _ = em.has_bos, em.pad_id, em.eos_ids
    try:
        for name in (em.family.final_norm, em.family.embeddings):
            em.model.get_submodule(name)
        em.head()
        for site in em.sites():
            em.site(site)
    except AttributeError as error:
        raise ModelError(f"{em.ref} is not built like family {em.family.name}: {error}") from error


def _check_numbers(em: EditableModel) -> None:
    """One pass over one token: damaged weights, or a type too narrow for the model, make all of it NaN."""
    import torch

    ordinary = next(i for i in range(em.vocabulary) if i not in em.tokenizer.all_special_ids)
    with torch.no_grad():
        logits = em.model(input_ids=torch.tensor([[ordinary]], device=em.device)).logits
    if bool(torch.isfinite(logits).all()):
        return
    kind = str(em.dtype).removeprefix("torch.")
    hint = "use --dtype bfloat16 or float32" if kind == "float16" else "download or copy it again"
    for name, weight in em.parameters():
        if not bool(torch.isfinite(weight).all()):
            raise ModelError(f"{em.ref} is damaged: {name} holds NaN or infinity in {kind}", hint)
    raise ModelError(f"{em.ref} computes NaN or infinity in {kind}", hint)


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars or advice from transformers while loading; the user's own settings come back."""
    from transformers.utils import logging as their_logging

    settings: Any = their_logging
    level, bars = settings.get_verbosity(), settings.is_progress_bar_enabled()
    settings.set_verbosity_error()
    settings.disable_progress_bar()
    try:
        yield
    finally:
        settings.set_verbosity(level)
        if bars:
            settings.enable_progress_bar()
