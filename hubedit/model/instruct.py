"""Whether a model is asked in its chat template: as somebody says, or as its name and card do."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hubedit.errors import ConfigError
from hubedit.model.card import front_matter
from hubedit.model.chat import RECORD, Chat, chat_of
from hubedit.model.editable import EditableModel

_WORDS = re.compile(r"(?:^|[-_. ])(instruct|instruction|chat|it|sft|dpo|rlhf|assistant)(?=$|[-_. ])", re.I)
_TAGS = ("conversational", "instruct", "instruction-tuned", "chat", "sft", "dpo", "rlhf")


def choose(
    em: EditableModel, mode: str = "auto", system: str = "", made: Mapping[str, Any] | None = None
) -> tuple[Chat | None, str]:
    """The template to use with a model (None: none), and one line that says so ("": it has none).

    `mode`: "auto", "on" or "off"; `made`: the record of a patch, whose own choice "auto" follows, its system
    prompt included; a composed patch of several choices and a foreign one have none.
    Raises ConfigError as `chat_of` does, for another mode, and for a system prompt where no template is used.
    """
    if mode not in ("auto", "on", "off"):
        raise ConfigError(f"unknown chat {mode!r}", "one of: auto, on, off")
    template = em.tokenizer.chat_template
    where = "the patch"
    if made is not None and not _chose(made):
        made = None
    if mode == "auto" and made is None:
        made, where = _patch_in(em.path), "the patch in it"
    if mode == "auto" and made is not None:
        own = made.get(RECORD)
        known = own if isinstance(own, Mapping) else {}
        wanted, why = isinstance(own, Mapping), f"as {where} was made"
        system = system or str(known.get("system", ""))
    elif mode == "auto":
        why = instructed(em.path, em.ref, em.model.config.to_dict()) if template else ""
        wanted, why = bool(why), why or "nothing says that this is an instruction model"
    else:
        wanted, why = mode == "on", f"--chat {mode}"
    if not wanted:
        if system:
            raise ConfigError(f"--system without a chat template ({why})", "add --chat on")
        return None, f"chat template: not used ({why})" if template else ""
    prompt = f"; system prompt {system!r}" if system else ""
    return chat_of(em.tokenizer, system), f"chat template: used ({why}){prompt}"


def instructed(folder: Path, ref: str, config: Mapping[str, Any]) -> str:
    """What says that a model was trained to follow instructions: its name, its configuration's, or its card's
    tags or base model; "" where nothing does."""
    for name, where in ((ref, "name"), (folder.name, "name"), (config.get("_name_or_path"), "configuration")):
        found = _WORDS.search(Path(str(name or "")).name)
        if found:
            return f"the model's {where} says {found[0].strip('-_. ')}"
    front = front_matter(folder)
    tags = {str(tag).lower() for tag in _listed(front.get("tags"))}
    if word := next((tag for tag in _TAGS if tag in tags), ""):
        return f"the model's card has the tag {word}"
    for base in _listed(front.get("base_model")):
        if re.search(r"[-_](base|pt)$", str(base), re.IGNORECASE):
            return f"its card says that it was made from {base}"
    return ""


def _patch_in(folder: Path) -> Mapping[str, Any] | None:
    """The record of the newest patch in a checkpoint that `hubedit merge` wrote, where an edit made it; else
    None. The checkpoint's own name and card say nothing of how its base was trained."""
    try:
        newest = _record(folder)["lineage"][-1]["folder"]
        found = _record(folder / str(newest))
        return found if _chose(found) else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _chose(record: Mapping[str, Any]) -> bool:
    """Whether a patch's record says how it was asked: an edit without a template leaves the field out."""
    return "method" in record or RECORD in record


def _record(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "hubedit.json").read_text(encoding="utf-8"))
    return found


def _listed(value: object) -> list[object]:
    return list(value) if isinstance(value, (list, tuple)) else [] if value is None else [value]
