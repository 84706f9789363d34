"""The base model's licence, as its own card states it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hubedit.model.card import front_matter

_KEYS = ("license", "license_name", "license_link")
_IDENTIFIER = re.compile(r"[a-z0-9][a-z0-9.+-]*")


def licence_of(folder: str | Path) -> dict[str, Any]:
    """`license`, `license_name`, `license_link` of the card (README.md) in a model's folder.

    Empty where there is no card, or none that says so. Store it as `record["base"]["licence"]`.
    """
    found = front_matter(folder)
    return {key: found[key] for key in _KEYS if found.get(key)}


def licence_metadata(base: Mapping[str, Any], name: str, commit: str) -> dict[str, Any]:
    """The licence of a base record for the metadata of a card that derives from it.

    `name`, `commit`: of the base on the Hub, "" for a local one. A link to a file of the base's
    repository becomes an address; where there is none to give it is left out.
    """
    told = base.get("licence") or base.get("license")
    told = told if isinstance(told, Mapping) else {"license": told}
    names = told.get("license")
    names = [names] if isinstance(names, str) else names if isinstance(names, list) else []
    known = [text for n in names if _IDENTIFIER.fullmatch(text := str(n).strip().lower())]
    if not known:
        return {}
    data: dict[str, Any] = {"license": known[0] if len(known) == 1 else known}
    if "other" not in known:
        return data
    if told.get("license_name"):
        data["license_name"] = str(told["license_name"])
    link = str(told.get("license_link") or "")
    if link.startswith("https://"):
        data["license_link"] = link
    elif re.fullmatch(r"[\w.-]+", link) and name and commit:
        data["license_link"] = f"https://huggingface.co/{name}/blob/{commit}/{link}"
    return data
