"""A package that is called like a function: `hubedit.edit(model, facts)`, and `hubedit.edit.methods` inside.

The verbs of the Python API have the names of the packages that do their work, and Python gives a package one
name for both.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules
from types import ModuleType
from typing import Any


class Verb(ModuleType):
    """A package whose call is `function`, "module:name", imported then; its modules are imported when they
    are first used. Copies of it, and what a pickle gives back, are the package itself."""

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

    def _documentation(self) -> str:
        signature = str(self.__signature__).replace("'", "")  # of annotations, which are text
        return f"{self.__name__}{signature}\n\n{inspect.getdoc(self._run)}"

    def _redocumented(self, text: str | None) -> None:
        """A package that is reloaded keeps the documentation of its function."""

    __doc__: Any = property(_documentation, _redocumented)

    def __getattr__(self, name: str) -> Any:
        full = f"{self.__name__}.{name}"
        if name.startswith("_") or find_spec(full) is None:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return import_module(full)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *(module.name for module in iter_modules(self.__path__))})

    def __reduce__(self) -> tuple[Callable[[str], ModuleType], tuple[str]]:
        return import_module, (self.__name__,)


def callable_as(name: str, function: str) -> None:
    """Makes the package `name` callable as `function`, "module:name"."""
    package = sys.modules[name]
    package.__class__ = Verb
    vars(package)["function"] = function
