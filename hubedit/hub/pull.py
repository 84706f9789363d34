"""From `owner/name[@revision]` to a folder: in the client's cache, or one of the user's."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hubedit.errors import ConfigError, HubError
from hubedit.folder import check_free, check_writable, write_folder
from hubedit.hub.account import client
from hubedit.hub.changes import read_tree, resolve
from hubedit.hub.contents import CONFIG, RECORD, kind_of
from hubedit.model.fetch import is_path
from hubedit.remote import translated_errors

_PATCH = ("adapter_config.json", "adapter_model.safetensors", "*.json", "*.jsonl", "*.md", "plots/*")
_NEVER = ("*.bin", "*.pt", "*.pth", "*.pickle", "*.pkl", "*.ckpt", "*.py")


@dataclass(frozen=True)
class Pulled:
    """`kind`: "patch" or "model"; `commit`: what the revision meant; `path`: where the files are."""

    repo: str
    commit: str
    kind: str
    path: Path


def patch_folder(ref: str | Path) -> Path:
    """The folder of a PATCH argument: a local one, or a repository `owner/name[@revision]` in the cache.

    Raises HubError where there is no such thing. What the folder holds is checked by `Patch.load`.
    """
    text = str(ref)
    if is_path(text):
        folder = Path(text).expanduser()
        if not folder.is_dir():
            hint = "a repository at the Hub is written owner/name"
            raise HubError(f"{text} is no patch folder", hint)
        return folder
    repo, _, revision = text.partition("@")
    folder = _snapshot(repo, revision, _PATCH)
    if not (folder / CONFIG).is_file():
        raise HubError(f"{repo} holds no patch: it has no {CONFIG}", "give the repository of a patch")
    return folder


def pull(ref: str, out: Path | None = None, *, overwrite: bool = False) -> Pulled:
    """Downloads a patch or a model, to the cache or to the folder `out`.

    A patch's folder appears complete or not at all; a model's download is continued by the next call.
    Raises HubError, PatchError.
    """
    repo, _, revision = ref.partition("@")
    if is_path(ref) and not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise HubError(f"{ref} is a folder, not a repository", "give owner/name[@revision]")
    api = client()
    commit = resolve(api, repo, revision or "main")
    kind = kind_of(read_tree(api, repo, commit))
    if not kind:
        raise HubError(f"{repo} holds neither a patch nor a model in safetensors format", "check the name")
    if kind == "patch":
        if out is not None:
            check_free(out, RECORD, overwrite=overwrite)
        folder = _snapshot(repo, commit, _PATCH)
        if out is not None:
            _copy(folder, out, overwrite)
        return Pulled(repo, commit, kind, out or folder)
    if out is None:
        return Pulled(repo, commit, kind, _snapshot(repo, commit, ()))
    _check_begun(out, overwrite)
    check_writable(out)
    return Pulled(repo, commit, kind, _snapshot(repo, commit, (), out))


def _snapshot(repo: str, revision: str, patterns: Sequence[str], out: Path | None = None) -> Path:
    from huggingface_hub import constants, snapshot_download

    with translated_errors(repo, revision or None, kind=HubError, doing="download"):
        return Path(
            snapshot_download(
                repo,
                revision=revision or None,
                allow_patterns=list(patterns) or None,
                ignore_patterns=list(_NEVER),
                local_dir=out,
                local_files_only=bool(constants.HF_HUB_OFFLINE),
            )
        )


def _copy(folder: Path, out: Path, overwrite: bool) -> None:
    def fill(part: Path) -> None:
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            target = part / file.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)  # the cache holds links

    write_folder(out, fill, marker=RECORD, overwrite=overwrite)


def _check_begun(out: Path, overwrite: bool) -> None:
    """A folder with files is only gone on with when an earlier download began it."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not out.is_dir():
        raise ConfigError(f"{out} is a file, not a folder", "choose another place with --out")
    if not (overwrite or (out / ".cache" / "huggingface").is_dir()):
        raise ConfigError(f"{out} is not empty", "choose another place with --out, or add --force")
