"""From what the user typed to a folder with a model's files, pinned to a commit."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hubedit.errors import CheckpointError, HubEditError, ModelError
from hubedit.model.owner import check_head, owners
from hubedit.remote import translated_errors
from hubedit.weights.header import read_header

_FILES = ("README.md", "LICENSE*", "*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*.tiktoken")
_IGNORED = ("*/*", "consolidated*.safetensors")  # sub-folders, and Mistral's second copy of the weights


EMPTY = (
    "DeepSpeed ZeRO-3 saves weights like this that it has split among processes: gather them "
    "(stage3_gather_16bit_weights_on_model_save, or zero_to_fp32.py) and save again"
)
"""The hint for a tensor without elements."""

# the name of a shard in an index: a file beside it, and no hidden one
_SHARD = re.compile(r"(?!\.)[^/\\\x00]+\.safetensors")


@dataclass(frozen=True)
class Source:
    """`ref`: as given, without `@revision`; `commit`: 40 hexadecimal digits, "" for a local folder."""

    ref: str
    folder: Path
    commit: str


def is_path(ref: str) -> bool:
    """Whether a reference means a local folder: it exists, or could not be the name of a repository.

    Such a string is never sent to the Hub.
    """
    return ref.startswith((".", "/", "~")) or ref.count("/") > 1 or "\\" in ref or Path(ref).exists()


def find(ref: str, *, code: bool = False) -> Source:
    """The folder of a local path, or the snapshot of `repo` or `repo@revision` on the Hub.

    `code`: fetch Python files too. Raises ModelError with the reason in one line.
    """
    if not ref.strip():
        raise ModelError("no model was named", "give a folder or a Hub repository such as Qwen/Qwen2.5-0.5B")
    if is_path(ref):
        folder = Path(ref).expanduser()
        if not folder.exists():
            raise ModelError(f"no such folder: {ref}", "a Hub repository is written owner/name")
        if not folder.is_dir():
            raise ModelError(f"{ref} is a file, not a folder", "give the folder that holds config.json")
        return Source(ref, folder, "")
    repo, _, revision = ref.partition("@")
    folder = _download(repo, revision or None, code)
    return Source(repo, folder, folder.name if re.fullmatch("[0-9a-f]{40}", folder.name) else "")


def check(source: Source) -> dict[str, Any]:
    """config.json, once the folder is known to hold a model with readable safetensors weights.

    Raises ModelError for adapters, also beside a model, pickle-only weights, missing and damaged files.
    """
    folder, name = source.folder, source.ref
    if not (folder / "config.json").is_file():
        adapter = folder / "adapter_config.json"
        if adapter.is_file():
            base = _json(adapter).get("base_model_name_or_path") or "its base model"
            raise ModelError(f"{name} is a PEFT adapter, not a model", f"give {base}")
        raise ModelError(
            f"{name} has no config.json", "give the folder or repository of a transformers model"
        )
    check_alone(folder, name, ModelError)
    config = _json(folder / "config.json")
    _check_weights(source, config)
    for optional in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        if (folder / optional).is_file():
            _json(folder / optional)
    check_tokenizer(folder, name)
    return config


def check_tokenizer(folder: Path, name: str) -> None:
    """Raises ModelError for a folder without a tokenizer's files."""
    if not any((folder / file).is_file() for file in _TOKENIZERS):
        raise ModelError(
            f"{name} has no tokenizer", "put the tokenizer's files (tokenizer.json) beside config.json"
        )


def weight_files(source: Source) -> tuple[Path, ...]:
    """The safetensors files of the model, sorted. Raises ModelError when any is missing.

    As transformers does: `model.safetensors` where it is there, else the shards of the index.
    """
    folder, name = source.folder, source.ref
    single = folder / "model.safetensors"
    if single.is_file():
        return (single,)
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        parts = shards(_json(index))
        if parts is None:
            raise ModelError(f"the index of {name} names no files beside it", "download or copy it again")
        for part in parts:
            if not _there(folder / part):
                raise ModelError(
                    f"{name} lacks the weight file {part[:100]}", "download or copy the model again"
                )
        if parts:
            return tuple(folder / part for part in parts)
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt")) or any(folder.glob("*.pth")):
        raise ModelError(
            f"{name} has only pickle weights, which can run code when read",
            "convert them: load with transformers and call save_pretrained",
        )
    raise ModelError(
        f"{name} has no safetensors weights (model.safetensors)",
        "pickle weights (.bin) are not read; convert them with save_pretrained",
    )


def shards(index: Mapping[str, Any]) -> list[str] | None:
    """The weight files that an index of shards names, sorted; None where one is no file beside the index, or
    there is no map. Whoever wrote the index must not choose files elsewhere on this machine."""
    files = index.get("weight_map")
    if not isinstance(files, dict) or not all(isinstance(file, str) for file in files.values()):
        return None
    names = sorted(set(files.values()))
    return names if all(_SHARD.fullmatch(name) for name in names) else None


def check_alone(folder: Path, name: str, error: type[HubEditError]) -> None:
    """Raises `error` for a folder that holds an adapter, alone or beside a model.

    transformers applies an adapter that it finds beside a model, so what it loads is not what was named.
    """
    if (folder / "adapter_config.json").is_file():
        what = "also holds" if (folder / "config.json").is_file() else "is"
        raise error(
            f"{name} {what} a LoRA adapter, which loaders would apply as well",
            "give a folder with the model alone; from the Hub: "
            "hf download REPO --exclude 'adapter_*' --local-dir DIR",
        )


def identity(source: Source) -> str:
    """The commit, or for a local folder the sha256 over config.json and the weight files' contents."""
    if source.commit:
        return source.commit
    total = hashlib.sha256()
    for file in (source.folder / "config.json", *weight_files(source)):
        with file.open("rb") as stream:
            total.update(f"{file.name} {hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")


def _json(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, numbers or nesting without end
        raise ModelError(f"{file} is not valid JSON: {error}", "download or copy the model again") from error
    except OSError as error:
        raise ModelError(f"cannot read {file}: {error.strerror or error}") from error
    if not isinstance(data, dict):
        raise ModelError(f"{file} is not a JSON object", "download or copy the model again")
    return data


def _there(file: Path) -> bool:
    try:
        return file.is_file()
    except OSError:  # a name that is too long
        return False


def _check_weights(source: Source, config: Mapping[str, Any]) -> None:
    """Raises ModelError for a file that cannot be read, and for a tensor with two values (`owners`).

    What safetensors opens loads, also where `read_header`, which is stricter, does not take the file: then
    nothing is said about copies.
    """
    from safetensors import SafetensorError, safe_open

    files = weight_files(source)
    for file in files:
        try:
            with safe_open(file, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise ModelError(f"cannot read {file}: {error}", "download or copy the model again") from error
    try:
        headers = {file.name: read_header(file) for file in files}
    except CheckpointError:
        return
    index: dict[str, str] = {}
    if files[0].name != "model.safetensors":
        index = _json(source.folder / "model.safetensors.index.json")["weight_map"]
    try:
        taken, _ = owners(source.ref, headers, index, ModelError)
        tensors = {tensor: headers[name].tensors[tensor] for tensor, name in taken.items()}
        check_head(source.ref, tensors, config)
    except CheckpointError as error:
        raise ModelError(error.message, error.hint) from error


def _download(repo: str, revision: str | None, code: bool) -> Path:
    from huggingface_hub import constants, snapshot_download

    with translated_errors(repo, revision, kind=ModelError, doing="download"):
        return Path(
            snapshot_download(
                repo,
                revision=revision,
                allow_patterns=[*_FILES, *(["*.py"] if code else [])],
                ignore_patterns=list(_IGNORED),
                local_files_only=bool(constants.HF_HUB_OFFLINE),
            )
        )
