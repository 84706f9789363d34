"""Typed errors. Every one carries a one-line message and, where there is one, the next step.

Only `hubedit.cli` renders them; the library raises and never prints.
"""

from __future__ import annotations

from collections.abc import Sequence


class HubEditError(Exception):
    """Base of all errors a user can meet.

    `message`: what is wrong, one line. `hint`: what to do next, one line or empty. `problems`: where there
    are several, each in one line.
    `exit_code`: what the command line exits with (1 failure, 2 wrong usage or input, 3 partial failure).
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "", problems: Sequence[str] = ()) -> None:
        said = f"{message}: {problems[0]}" if problems else message
        super().__init__(said if not hint else f"{said} ({hint})")
        self.message = message
        self.hint = hint
        self.problems = tuple(problems)


class ConfigError(HubEditError):
    """An option that does not exist or does not fit the model."""

    exit_code = 2


class FactsError(HubEditError):
    """A facts file that cannot be used; `problems` lists every one, `file:line: what, how to mend it`."""

    exit_code = 2


class ModelError(HubEditError):
    """A model that cannot be found, loaded or edited."""


class TokenError(HubEditError):
    """A prompt whose subject or target cannot be placed in its tokens."""

    exit_code = 2


class PatchError(HubEditError):
    """A patch that cannot be read, does not fit a model, or cannot be written."""


class CheckpointError(HubEditError):
    """A checkpoint that cannot be read, merged, reverted or written."""


class HubError(HubEditError):
    """The Hub cannot be reached, or refuses what was asked of it."""


class CollapseError(HubEditError):
    """An edit that would damage the model; raised before anything is written."""


class PartialError(HubEditError):
    """Part of the work failed; what came out was written."""

    exit_code = 3


class StrictError(PartialError):
    """`--strict`: the patch was written, but some facts still fail."""


def kind(value: object) -> str:
    """What a value is, for messages."""
    return "None" if value is None else f"of type {type(value).__name__}"
