"""What the verbs take: a wrong kind of thing is an error that says how to get the right one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from hubedit.cache import Cache
from hubedit.config import EditConfig
from hubedit.errors import ConfigError, FactsError, ModelError, kind
from hubedit.facts import Fact
from hubedit.model.editable import EditableModel

CacheLike = Cache | str | Path
"""A cache, or its folder."""


def model_of(model: EditableModel) -> EditableModel:
    """The model. Raises ModelError for anything that `hubedit.load` did not give."""
    if not isinstance(model, EditableModel):
        raise ModelError(
            f"the model must be one of hubedit.load, and is {kind(model)}",
            'model = hubedit.load("owner/name"), or with a folder',
        )
    return model


def facts_of(facts: Fact | Iterable[Fact]) -> list[Fact]:
    """The facts as a list. Raises FactsError for anything else."""
    hint = "hubedit.load_facts(path) reads a file, and hubedit.Fact(prompt, subject, target) makes one"
    if isinstance(facts, (str, Path)) or not isinstance(facts, (Fact, Iterable)):
        raise FactsError(f"facts must be hubedit.Fact objects, and are {kind(facts)}", hint)
    found = [facts] if isinstance(facts, Fact) else list(facts)
    for number, fact in enumerate(found, 1):
        if not isinstance(fact, Fact):
            raise FactsError(f"facts must be hubedit.Fact objects, and number {number} is {kind(fact)}", hint)
    return found


def agreeing(facts: Sequence[Fact]) -> Sequence[Fact]:
    """The facts. Raises FactsError where two of them give one prompt different answers."""
    first: dict[str, tuple[int, Fact]] = {}
    problems = []
    for number, fact in enumerate(facts, 1):
        before, other = first.setdefault(fact.prompt, (number, fact))
        if (other.join or "", other.target) != (fact.join or "", fact.target):
            problems.append(f"fact {number} contradicts fact {before}: {fact.prompt!r}")
    if problems:
        raise FactsError("facts contradict each other", "keep one of them", problems)
    return facts


def config_of(config: EditConfig | None) -> EditConfig:
    """The configuration, the default without one. Raises ConfigError for anything else."""
    if config is None:
        return EditConfig()
    if not isinstance(config, EditConfig):
        raise ConfigError(
            f"config must be a hubedit.EditConfig, and is {kind(config)}",
            "hubedit.method_defaults(method) is that of a method, hubedit.preset(name) that of a preset",
        )
    return config


def cache_of(cache: CacheLike | None) -> Cache | None:
    """The cache, or that of a folder."""
    return Cache(cache) if isinstance(cache, (str, Path)) else cache
