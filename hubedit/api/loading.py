"""`hubedit.load`."""

from __future__ import annotations

from dataclasses import replace

from hubedit.model.editable import EditableModel
from hubedit.model.instruct import choose
from hubedit.model.load import load as loaded


def load(
    ref: str,
    *,
    device: str = "auto",
    dtype: str = "auto",
    max_memory: str = "",
    trust_remote_code: bool = False,
    chat: str = "auto",
    system: str = "",
) -> EditableModel:
    """A model to edit: a folder, `repo` or `repo@revision`, in evaluation mode and with gradients off.

    `device`, `dtype`, `max_memory`, `trust_remote_code`: as for `hubedit.model.load.load`. `chat`: whether it
    is asked in its chat template: "on", "off", or "auto", where it is a model that follows instructions;
    `system`: the system prompt there. Raises ModelError, ConfigError.
    """
    em = loaded(ref, device=device, dtype=dtype, max_memory=max_memory, trust_remote_code=trust_remote_code)
    template, _ = choose(em, chat, system)
    return replace(em, chat=template)
