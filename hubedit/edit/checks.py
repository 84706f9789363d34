"""Facts and settings that do not fit a model, refused before the long work would meet them."""

from __future__ import annotations

from collections.abc import Sequence

from hubedit.config import EditConfig
from hubedit.documents import source as corpus_source
from hubedit.edit.locate.layers import check_one_layer, parse_layers
from hubedit.edit.statistics.corpus import SELF
from hubedit.errors import FactsError
from hubedit.facts import Fact, check_tokens
from hubedit.model.editable import EditableModel
from hubedit.presets import check_settings


def check_facts(em: EditableModel, facts: Sequence[Fact], source: str = "facts") -> None:
    """Raises FactsError with every fact that the model's tokenizer cannot place."""
    if not facts:
        raise FactsError(f"{source}: no facts to edit", "write one fact on each line")
    problems = check_tokens(facts, em.tokenizer, source)
    if problems:
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise FactsError(f"{source}: {count} with the tokenizer of {em.ref}", problems=problems)


def check_config(em: EditableModel, config: EditConfig) -> None:
    """Raises ConfigError for settings that do not fit the model."""
    layers = (0,) if config.layers == "auto" else parse_layers(config.layers, em.num_layers)
    check_one_layer(config, layers)
    check_settings(config)
    if config.stats.corpus != SELF:
        corpus_source(config.stats.corpus)
