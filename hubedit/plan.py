"""What an edit would do and need, from the model's configuration and tokenizer alone: no weights are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hubedit.config import EditConfig
from hubedit.edit.locate.layers import untraced_layers
from hubedit.edit.statistics.corpus import needed_tokens
from hubedit.errors import ConfigError
from hubedit.facts import Fact
from hubedit.facts.tokens import load_tokenizer
from hubedit.model import load as loading
from hubedit.model.editable import EditableModel
from hubedit.model.families import family_of
from hubedit.model.fetch import check, find, is_path
from hubedit.model.forms import put
from hubedit.model.reading import reading
from hubedit.model.sites import Site
from hubedit.model.tokens import continuation, encode
from hubedit.patch.adapter import uniform_rank
from hubedit.presets import LORA_RANK, METHODS

_TYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Plan:
    """`layers`: empty where the trace will choose one; `sites`: how many weights are edited.
    `statistics_tokens`: text read for the
    statistics; `trace_runs`: forward passes of tracing; `target_tokens`: tokens that the optimisation runs
    through the upper layers, about. `memory`: bytes at the peak, estimated, on a GPU the least that it takes;
    `patch_size`: bytes, at most.
    """

    model: str
    family: str
    parameters: int
    num_layers: int
    device: str
    dtype: str
    facts: int
    layers: tuple[int, ...]
    alpha: str
    sites: int
    rank: int
    statistics_tokens: int
    trace_runs: int
    target_tokens: int
    memory: int
    patch_size: int


def plan(
    em: EditableModel, facts: Sequence[Fact], config: EditConfig, *, device: str = "auto", dtype: str = "auto"
) -> Plan:
    """The plan of an edit; `em` may be a `skeleton`. `device`, `dtype`: as for `hubedit.model.load.load`."""
    method = METHODS[config.method]
    layers = untraced_layers(config, em.num_layers)
    shared = method.balanced
    alpha_traced = shared and config.alpha in ("auto", "per-layer")
    # a method without a share edits all of its sites
    share = 0.5 if alpha_traced or not shared else float(config.alpha)
    sites = [Site(layer, "attention") for layer in layers or (0,) if share > 0 and method.attention]
    sites += [Site(layer, "mlp") for layer in layers or (0,) if share < 1]
    answers = [len(continuation(em.tokenizer, f.prompt, f.target, f.join)) for f in facts]
    most = sum(answers) if method.by_token else len(facts)
    if method.trained:
        most = min(em.weight(sites[0]).shape) if method.full_rank else max(config.rank, 0) or LORA_RANK
    rank = uniform_rank({"": min(most, max(config.rank, 0) or most)})
    place = loading.pick_device(device).type
    kind = _dtype(em, place, dtype)
    parameters = sum(p.numel() for p in em.model.parameters())
    size = sum(sum(em.weight(site).shape) for site in sites)
    # a moment and its Cholesky factor in float64 a site, of one site where a GPU is short of memory, and the
    # exact factors with their key spaces
    each = [2 * 8 * em.d_in(site) ** 2 for site in sites]
    solve = (max(each, default=0) if place == "cuda" else sum(each)) + 3 * 8 * len(facts) * size
    lengths = [
        len(encode(em.tokenizer, put(em, f)[0]).ids) + answer
        for f, answer in zip(facts, answers, strict=True)
    ]
    rows = 2 + config.targets.contexts
    traced = min(config.trace.max_facts, len(facts)) if alpha_traced or not layers else 0
    return Plan(
        model=em.ref,
        family=em.family.name,
        parameters=parameters,
        num_layers=em.num_layers,
        device=place,
        dtype=str(kind).removeprefix("torch."),
        facts=len(facts),
        layers=layers,
        alpha=config.alpha,
        sites=len(sites),
        rank=rank,
        statistics_tokens=needed_tokens(em, config.stats),
        trace_runs=traced * config.trace.samples * (1 + 2 * em.num_layers),
        # the joint edit looks for a step at every site, most of them in its first round
        target_tokens=config.targets.steps * rows * sum(lengths) * (1 if method.published else len(sites)),
        memory=parameters * kind.itemsize + solve,
        patch_size=4 * rank * size,
    )


def skeleton(ref: str, *, trust_remote_code: bool = False) -> EditableModel:
    """The model without its weights (parameters on the "meta" device), with its tokenizer.

    Of a Hub repository only the configuration and the tokenizer are fetched. Raises ModelError.
    """
    import transformers

    if is_path(ref):
        source = find(ref)
        check(source)
    tokenizer = load_tokenizer(ref)
    folder = Path(tokenizer.name_or_path)
    with reading(f"cannot read the configuration of {ref}"), torch.device("meta"):
        config = transformers.AutoConfig.from_pretrained(
            folder, trust_remote_code=trust_remote_code, local_files_only=True
        )
        family = family_of(config)
        auto: Any = getattr(transformers, family.loader)
        model = auto.from_config(config, trust_remote_code=trust_remote_code)
    name = ref if is_path(ref) else ref.partition("@")[0]
    commit = "" if is_path(ref) else folder.name
    return EditableModel(model.eval().requires_grad_(False), tokenizer, family, name, commit, folder, commit)


def _dtype(em: EditableModel, device: str, name: str) -> torch.dtype:
    """What `load` would compute in. Raises ConfigError for a name that it does not know."""
    if name != "auto" and name not in _TYPES:
        raise ConfigError(f"unknown dtype {name!r}", f"one of: auto, {', '.join(_TYPES)}")
    if name != "auto":
        return _TYPES[name]
    own = getattr(em.model.config, "dtype", None)
    if device == "cpu":
        return _TYPES[loading.cpu_dtype(own)]
    return own if isinstance(own, torch.dtype) else torch.float32
