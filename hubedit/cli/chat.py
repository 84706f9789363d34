"""The options that say whether a model is asked in its chat template."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from hubedit.cli.output import Output

if TYPE_CHECKING:
    from hubedit.model.editable import EditableModel


class Chat(StrEnum):
    """Whether prompts are put into the model's chat template."""

    auto = "auto"
    on = "on"
    off = "off"


ChatOption = Annotated[
    Chat, Option("--chat", help="Ask in the chat template; auto: where the model follows instructions.")
]
SystemOption = Annotated[
    str, Option("--system", metavar="TEXT", help="The system prompt (default: the template's own).")
]


def with_chat(
    sink: Output, em: EditableModel, chat: Chat, system: str, made: Mapping[str, Any] | None = None
) -> EditableModel:
    """The model with the chat template that the options ask for; says so in one line. `made`: a patch's
    record, whose own choice "auto" follows."""
    from dataclasses import replace

    from hubedit.model.instruct import choose

    found, line = choose(em, chat.value, system, made)
    if line:
        sink.note(line)
    return replace(em, chat=found)
