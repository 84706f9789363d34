"""Errors of libraries that read a model's files, as one of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hubedit.errors import HubEditError, ModelError

_LONGEST = 300


@contextmanager
def reading(what: str, hint: str = "download or copy it again") -> Iterator[None]:
    """ModelError `what: reason` for whatever a library raises in the block, except out of memory.

    transformers checks little of what it reads and tokenizers raises plain `Exception`, so a damaged file can
    end in any error, also in a panic of its Rust code, which is no `Exception`.
    """
    try:
        yield
    except HubEditError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        from hubedit.model.memory import out_of_memory

        if out_of_memory(error):
            raise
        raise ModelError(f"{what}: {reason(error)}", hint) from error


def reason(error: BaseException) -> str:
    """An error's text in one line of bounded length; its kind where it has none."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
