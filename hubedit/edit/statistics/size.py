"""How many tokens the statistics read, and how many of them are of sentences about names."""

from __future__ import annotations

from itertools import islice

from hubedit.config import StatsConfig
from hubedit.errors import ConfigError
from hubedit.model.editable import EditableModel
from hubedit.model.tokens import token_ids
from hubedit.name_sentences import sentences

TOKENS_PER_INPUT = 12
"""Tokens that are read for each input of the widest site; arXiv 2506.04226 finds about 10 enough."""
_AT_ONCE = 1000  # sentences that are tokenized together


def needed_tokens(em: EditableModel, config: StatsConfig) -> int:
    """`config.tokens`, or `TOKENS_PER_INPUT` x the widest site's input when it is 0."""
    if config.tokens < 0:
        hint = f"0 means {TOKENS_PER_INPUT} x the widest site"
        raise ConfigError(f"tokens must be at least 1, not {config.tokens}", hint)
    if config.tokens:
        return config.tokens
    return TOKENS_PER_INPUT * max(em.d_in(site) for site in em.sites())


def name_rows(em: EditableModel, config: StatsConfig) -> list[list[int]]:
    """Sentences about names as rows of tokens: `config.names` of all tokens, or every sentence where they are
    fewer."""
    wanted = config.names * needed_tokens(em, config)
    rows: list[list[int]] = []
    count, left = 0, sentences()
    while count < wanted and (some := list(islice(left, _AT_ONCE))):
        for row in token_ids(em.tokenizer, some):
            if count >= wanted:
                break
            rows.append(list(row))
            count += len(row)
    return rows


def corpus_tokens(em: EditableModel, config: StatsConfig) -> int:
    """Tokens of the corpus itself: all but those of the sentences about names."""
    return max(0, needed_tokens(em, config) - sum(map(len, name_rows(em, config))))
