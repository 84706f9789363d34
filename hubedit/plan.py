"""What an edit would do and take, from the model's configuration and tokenizer, and from timing a block of
its shape with made-up weights: none are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from hubedit.cache import Cache
from hubedit.config import EditConfig
from hubedit.cost import Estimate, estimate
from hubedit.cost.stages import edited
from hubedit.cost.stand_in import stand_in
from hubedit.edit.locate.layers import untraced_layers
from hubedit.edit.statistics.size import needed_tokens
from hubedit.errors import ConfigError
from hubedit.facts import Fact
from hubedit.facts.tokens import load_tokenizer
from hubedit.model import load as loading
from hubedit.model.editable import EditableModel
from hubedit.model.families import family_of
from hubedit.model.fetch import check, find, identity, is_path
from hubedit.model.reading import reading
from hubedit.model.tokens import continuation
from hubedit.patch.adapter import uniform_rank
from hubedit.presets import LORA_RANK, METHODS

_TYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Plan:
    """`layers`: empty where the trace will choose one; `sites`: how many weights are edited.
    `statistics_tokens`: text read for the statistics; `trace_runs`: forward passes of tracing; `seconds`: by
    stage, and `memory`, bytes at the peak: estimated by a measurement on this machine (`hubedit.cost`), for
    the memory on a GPU the least that it takes; `patch_size`: bytes, at most.
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
    seconds: Mapping[str, float]
    memory: int
    patch_size: int

    @property
    def cost(self) -> Estimate:
        """Time and memory."""
        return Estimate(self.seconds, self.memory)


def plan(
    em: EditableModel,
    facts: Sequence[Fact],
    config: EditConfig,
    *,
    device: str = "auto",
    dtype: str = "auto",
    cache: Cache | None = None,
    brief: bool = False,
) -> Plan:
    """The plan of an edit; `em`: a `skeleton`, of which the first block is filled in to be timed. `device`,
    `dtype`: as for `hubedit.model.load.load`; `cache`: what it has takes no time; `brief`: of the report."""
    method = METHODS[config.method]
    layers = untraced_layers(config, em.num_layers)
    place = loading.pick_device(device)
    kind = _dtype(em, place.type, dtype)
    if cache is not None and not em.weights:
        em = replace(em, weights=identity(find(em.ref)))
    em = stand_in(em, place, kind)
    sites = edited(em, facts, config).sites
    answers = [len(continuation(em.tokenizer, f.prompt, f.target, f.join)) for f in facts]
    most = sum(answers) if method.by_token else len(facts)
    if method.trained:
        most = min(em.weight(sites[0]).shape) if method.full_rank else max(config.rank, 0) or LORA_RANK
    shapes = [tuple(em.weight(site).shape) for site in sites]
    most = min(most, max(map(min, shapes)))
    rank = uniform_rank({"": min(most, max(config.rank, 0) or most)})
    traced = not layers or (method.balanced and config.alpha in ("auto", "per-layer"))
    runs = min(config.trace.max_facts, len(facts)) * config.trace.samples * (1 + 2 * em.num_layers)
    cost = estimate(em, facts, config, cache or Cache(Path()), brief=brief)
    return Plan(
        model=em.ref,
        family=em.family.name,
        parameters=sum(p.numel() for p in em.model.parameters()),
        num_layers=em.num_layers,
        device=place.type,
        dtype=str(kind).removeprefix("torch."),
        facts=len(facts),
        layers=layers,
        alpha=config.alpha,
        sites=len(sites),
        rank=rank,
        statistics_tokens=needed_tokens(em, config.stats),
        trace_runs=runs if traced else 0,
        seconds=cost.seconds,
        memory=cost.memory,
        patch_size=4 * rank * sum(map(sum, shapes)),
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
        model = auto.from_config(
            config, attn_implementation=family.attention, trust_remote_code=trust_remote_code
        )
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
