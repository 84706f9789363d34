"""The prompts that published methods optimise on: the fact after short sentences, and one essence prompt."""

from __future__ import annotations

from collections.abc import Sequence

from hubedit.config import EditConfig
from hubedit.edit.rows import Row, edit_rows, row
from hubedit.facts import Fact
from hubedit.model.editable import EditableModel
from hubedit.model.sample import sample_documents
from hubedit.model.tokens import decode

_OPENINGS = ("The", "Therefore", "Because", "I", "You")
_LENGTHS = (10, 5)


def generated_contexts(em: EditableModel, count: int, seed: int) -> list[str]:
    """`count` beginnings that the model itself writes, each ending in ". ", of 10 tokens and, where there
    are more than one for each opening word, half of them of 5 (ROME and MEMIT, `get_context_templates`).

    Distinct from what they do: sampled among the 64 likeliest tokens with a seed, not the 5 likeliest.
    """
    if count < 1:
        return []
    lengths = _LENGTHS if count > len(_OPENINGS) else _LENGTHS[:1]
    contexts: list[str] = []
    for number, length in enumerate(lengths):
        wanted = (count - len(contexts)) if number == len(lengths) - 1 else (count + 1) // 2
        # a token to begin with stands before the opening in some models
        documents = sample_documents(em, wanted, length + 1, seed + number, _OPENINGS)
        for ids in documents[:wanted]:
            text = " ".join(decode(em.tokenizer, ids).split()).rstrip(" .,;:")
            contexts.append(f"{text}. " if text else "")
    return [c for c in contexts if c]


def published_rows(
    em: EditableModel, facts: Sequence[Fact], contexts: Sequence[str]
) -> tuple[list[Row], list[Row]]:
    """The facts' edit rows, bare prompt first, and one preserve row each for "{subject} is a".

    As in the authors' code, what is preserved there is the prediction at the subject's last token, where
    delta is added; what follows that token cannot change it.
    """
    rows = edit_rows(em, facts, contexts)
    essence = []
    for n, fact in enumerate(facts):
        found = row(em, n, f"{fact.subject} is a", fact.subject, labels=(0,), preserve=True)
        essence.append(Row(n, found.ids[: found.last + 1], found.last, (0,), True))
    return rows, essence


def contexts_of(em: EditableModel, config: EditConfig) -> list[str]:
    """The contexts that the configuration asks for."""
    return generated_contexts(em, config.targets.contexts, config.seed)
