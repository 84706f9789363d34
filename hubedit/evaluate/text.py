"""Real text as rows of tokens, to measure perplexity on."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from hubedit.errors import ConfigError
from hubedit.model.editable import EditableModel
from hubedit.model.tokens import encode

ROWS = 96
LENGTH = 256


def text_rows(em: EditableModel, documents: Iterable[str]) -> list[list[int]]:
    """The beginnings, at most `LENGTH` tokens, of the first `ROWS` documents.

    Raises ConfigError where there are none of at least two tokens.
    """
    most = min(LENGTH, em.max_positions)
    rows = [list(encode(em.tokenizer, text).ids[:most]) for text in islice(documents, ROWS)]
    kept = [row for row in rows if len(row) > 1]
    if not kept:
        raise ConfigError("the real text holds no text", "give a .txt or .jsonl file with a text a line")
    return kept
