"""`hubedit.load`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hubedit.errors import ModelError, kind
from hubedit.model.editable import EditableModel
from hubedit.model.instruct import choose
from hubedit.model.load import load as loaded

if TYPE_CHECKING:
    import torch


def load(
    ref: str | Path,
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    max_memory: str = "",
    trust_remote_code: bool = False,
    chat: str = "auto",
    system: str = "",
) -> EditableModel:
    """A model to edit, in evaluation mode and with gradients off.

    `ref`: a folder, `owner/name` or `owner/name@revision`
    `device`: "auto" is the first of cuda, mps and cpu that is there
    `dtype`: "float32", "float16" or "bfloat16"; "auto" is the checkpoint's own, and on most CPUs float32
    `max_memory`: "24GiB" for every GPU, or "0=20GiB,cpu=60GiB"; a model that does not fit is spread over them
    `trust_remote_code`: runs code from the model's repository
    `chat`: "on" asks it in its chat template, "off" does not; "auto" does where it follows instructions
    `system`: the system prompt in that template

    Raises ModelError, HubError, ConfigError.
    """
    if not isinstance(ref, (str, Path)):
        raise ModelError(f"a model is named by text, and this is {kind(ref)}", "give a folder or owner/name")
    em = loaded(
        str(ref),
        device=str(device),
        dtype=str(dtype).removeprefix("torch."),
        max_memory=max_memory,
        trust_remote_code=trust_remote_code,
    )
    template, _ = choose(em, chat, system)
    return replace(em, chat=template)
