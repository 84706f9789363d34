"""A package that is called like a function: `hubedit.edit(model, facts)`, and `hubedit.edit.methods` inside.

The verbs of the Python API have the names of the packages that do their work, and Python gives a package one
name for both.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any


class Verb(ModuleType):
    """A package whose call is `function`, "module:name", imported then."""

    function: str

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self._run(*args, **options)

    @property
    def _run(self) -> Callable[..., Any]:
        module, _, name = self.function.partition(":")
        found: Callable[..., Any] = getattr(import_module(module), name)
        return found

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self._run)


def callable_as(name: str, function: str) -> None:
    """Makes the package `name` callable as `function`, "module:name"."""
    package = sys.modules[name]
    package.__class__ = Verb
    vars(package)["function"] = function
