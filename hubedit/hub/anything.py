"""The folder of an argument that may be a patch, a merged model or a plain model."""

from __future__ import annotations

import json
import re
from pathlib import Path

from hubedit.errors import HubError
from hubedit.hub.contents import CONFIG, RECORD
from hubedit.hub.pull import patch_folder
from hubedit.model.fetch import check_alone, find, is_path
from hubedit.remote import translated_errors

_MERGED = ("patches/*", ".eval_results/*", "plots/*", "report.json")


def folder_of(ref: str, *, edited: bool = False) -> Path:
    """A local folder, or a repository `owner/name[@revision]` in the cache, with all that belongs to it.

    A patch comes with its facts, a merged model with the patches in it. With `edited` a repository that
    is neither is refused before its weights are downloaded. Raises ModelError, HubError.
    """
    if is_path(ref) or not ref.strip():
        return find(ref).folder
    repo, _, revision = ref.partition("@")
    seen = _fetch(repo, revision, (CONFIG, RECORD, "config.json"))
    # what follows is of the same commit, whatever is pushed meanwhile
    pinned = f"{repo}@{seen.name}" if re.fullmatch("[0-9a-f]{40}", seen.name) else ref
    if (seen / CONFIG).is_file() and not (seen / "config.json").is_file():
        return patch_folder(pinned)
    check_alone(seen, repo, HubError)
    if _is_merged(seen / RECORD):
        _fetch(repo, pinned.partition("@")[2], _MERGED)
    elif edited:
        raise HubError(f"hubedit merged no patch into {ref}", "hubedit diff compares two models")
    return find(pinned).folder


def _is_merged(file: Path) -> bool:
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and record.get("kind") == "merged"


def _fetch(repo: str, revision: str, patterns: tuple[str, ...]) -> Path:
    from huggingface_hub import constants, snapshot_download

    with translated_errors(repo, revision or None, kind=HubError, doing="download"):
        return Path(
            snapshot_download(
                repo,
                revision=revision or None,
                allow_patterns=list(patterns),
                local_files_only=bool(constants.HF_HUB_OFFLINE),
            )
        )
