"""From a method's name to the function that runs it."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from hubedit.edit.batch import EditBatch
from hubedit.edit.result import Edit
from hubedit.presets import METHODS


def function_of(method: str) -> Callable[[EditBatch], Edit]:
    """The function that `METHODS` names for a method, imported now."""
    module, _, name = METHODS[method].function.partition(":")
    found: Callable[[EditBatch], Edit] = getattr(import_module(module), name)
    return found
