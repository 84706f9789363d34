"""Real text as rows of tokens, to measure perplexity on."""

from __future__ import annotations

from itertools import islice

from hubedit.edit.documents import documents
from hubedit.errors import ConfigError
from hubedit.model.editable import EditableModel
from hubedit.model.tokens import encode

ROWS = 96
LENGTH = 256


def text_rows(em: EditableModel, source: str) -> list[list[int]]:
    """The beginnings, at most `LENGTH` tokens, of the first `ROWS` documents of a file or data set.

    Raises ConfigError where there are none of at least two tokens.
    """
    texts = islice(documents(source), ROWS)
    rows = [list(encode(em.tokenizer, text).ids[: min(LENGTH, em.max_positions)]) for text in texts]
    kept = [row for row in rows if len(row) > 1]
    if not kept:
        raise ConfigError(f"{source} holds no text", "give a .txt or .jsonl file with a text a line")
    return kept
