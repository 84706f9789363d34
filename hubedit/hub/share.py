"""Statistics and traces shared through a repository, so that not everybody computes them again.

Each is one cache file under its key's hash: `stats/<hash>.safetensors`, `trace/<hash>.safetensors`. A file
is taken only when it has the sha256 that the Hub names and holds the very key that its name is the hash of.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubedit.cache import Cache, Entry, digest, read_entry
from hubedit.errors import HubError
from hubedit.hub.account import client, with_retries
from hubedit.hub.changes import Content, Remote, Upload, read_tree, resolve
from hubedit.hub.contents import RECORD, kind_of
from hubedit.hub.private import without_paths
from hubedit.hub.pull import patch_folder
from hubedit.hub.push import Pushed, Target, put
from hubedit.model.fetch import is_path
from hubedit.patch.adapter import read_json
from hubedit.progress import Progress, Silent

if TYPE_CHECKING:
    from hubedit.patch import Patch

KINDS = ("stats", "trace")
AUTO = "auto"
_LOG = logging.getLogger(__name__)
_CARD = """---
tags:
- hubedit
---

# Statistics for hubedit

Second moments of models' activations (`stats/`) and causal traces (`trace/`), each under the hash of
everything that it depends on. Use them with `hubedit apply --stats-repo {repo}`.
"""


@dataclass(frozen=True)
class Shared:
    """What a download brought: paths of new cache entries, and how many were there already."""

    repo: str
    commit: str
    added: tuple[str, ...]
    known: int


class SharedCache(Cache):
    """A cache that looks for statistics and traces in a repository before they are computed.

    `repo`: `owner/name[@revision]`. Raises HubError at once where it cannot be read; a download that fails
    later only costs the time to compute.
    """

    def __init__(self, repo: str, root: Path | None = None) -> None:
        super().__init__(root)
        self.repo = repo
        self._store = _Store.open(repo)

    def load(self, kind: str, key: Mapping[str, Any]) -> Entry | None:
        """The entry from the disk, else from the repository."""
        found = super().load(kind, key)
        if found is not None or kind not in KINDS:
            return found
        path = self.path(kind, key)
        try:
            if not self._store.fetch(f"{kind}/{path.name}", path):
                return None
        except HubError as error:
            _LOG.warning("%s: it is computed instead", error.message)
            return None
        return super().load(kind, key)


def repository(ref: str, on: Patch | None = None) -> str:
    """The repository of statistics that a user means, "" where there is none.

    `ref`: the repository itself; a patch, as a folder or at the Hub, for the one that its record names; or
    "auto" for the one that `on`, the patch that is edited on top of, names. Raises HubError for a patch that
    names none, and for what is no repository.
    """
    if ref == AUTO:
        return _named(on.record) if on is not None else ""
    patch = (Path(ref).expanduser() / RECORD).is_file()
    if not patch:
        repo, _, revision = ref.partition("@")
        api = client()
        patch = kind_of(read_tree(api, repo, resolve(api, repo, revision or "main"))) == "patch"
    if not patch:
        return ref
    found = _named(read_json(patch_folder(ref) / RECORD))
    if not found:
        raise HubError(
            f"{ref} is a patch whose record names no repository of statistics",
            "give the repository itself: --stats-repo OWNER/NAME",
        )
    return found


def _named(record: Mapping[str, Any]) -> str:
    """The repository that a patch's statistics came from, "" for none."""
    statistics = record.get("statistics")
    found = statistics.get("repo") if isinstance(statistics, Mapping) else None
    return found if isinstance(found, str) and not is_path(found) else ""


def push_stats(
    cache: Cache, target: Target, *, model: str = "", dry_run: bool = False, progress: Progress | None = None
) -> Pushed:
    """Adds the cache's statistics and traces to a repository; nothing is removed there.

    `model`: only those whose key or record names it. Raises HubError where the cache holds none.
    """
    with tempfile.TemporaryDirectory(prefix="hubedit-") as work:
        files: dict[str, Content] = {}
        left: list[str] = []
        for kind in KINDS:
            for path in cache.entries(kind):
                entry = read_entry(path)
                if entry is None or not _of(entry.record, model):
                    continue
                if without_paths(entry.record.get("key")) != entry.record.get("key"):
                    left.append(f"{kind}/{path.name}")  # its hash would not fit any more
                    continue
                files[f"{kind}/{path.name}"] = Upload(_clean(kind, path, entry, Path(work)))
        if not files:
            what = f" of {model}" if model else ""
            raise HubError(f"the cache {cache.root} holds no statistics{what}", "run `hubedit stats compute`")
        files["README.md"] = Upload(_CARD.format(repo=target.repo).encode())
        count = len(files) - 1
        message = target.where.message or f"{count} statistics and traces"
        done = put(
            target,
            "stats",
            files,
            lambda tree: (),
            message,
            dry_run=dry_run,
            progress=progress or Silent(),
        )
    return replace(done, left_out=tuple(left))


def pull_stats(repo: str, cache: Cache) -> Shared:
    """Downloads a repository's statistics and traces that the cache lacks. Raises HubError."""
    store = _Store.open(repo)
    added, known = [], 0
    for name in sorted(store.tree):
        kind, _, file = name.partition("/")
        if kind not in KINDS or not file.endswith(".safetensors"):
            continue
        path = cache.root / kind / file
        if read_entry(path) is not None:
            known += 1
        elif store.fetch(name, path):
            added.append(str(path))
    if not added and not known:
        raise HubError(f"{store.repo} holds no statistics", "give a repository of `hubedit stats push`")
    return Shared(store.repo, store.commit, tuple(added), known)


@dataclass(frozen=True)
class _Store:
    """One commit of a repository of statistics."""

    repo: str
    commit: str
    tree: Mapping[str, Remote]

    @classmethod
    def open(cls, ref: str) -> _Store:
        repo, _, revision = ref.partition("@")
        api = client()
        commit = resolve(api, repo, revision or "main")
        return cls(repo, commit, read_tree(api, repo, commit))

    def fetch(self, name: str, path: Path) -> bool:
        """Downloads one file to `path`; False where it is not there. Raises HubError where it is wrong."""
        there = self.tree.get(name)
        if there is None:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".hubedit-", dir=path.parent) as work:
            api = client()
            file = Path(
                with_retries(
                    lambda: api.hf_hub_download(self.repo, name, revision=self.commit, local_dir=work),
                    self.repo,
                    doing="download",
                )
            )
            self._check(name, file, there)
            os.replace(file, path)
        return True

    def _check(self, name: str, file: Path, there: Remote) -> None:
        with file.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        entry = read_entry(file)
        key = None if entry is None else entry.record.get("key")
        if (there.sha256 and sha256 != there.sha256) or f"{digest(key)[:32]}.safetensors" != Path(name).name:
            raise HubError(f"{name} of {self.repo} is not what its name says", "compute it: hubedit stats")


def _of(record: Mapping[str, Any], model: str) -> bool:
    key = record.get("key") or {}
    names = (record.get("model"), record.get("identity"), key.get("model"))
    traced = (record.get("trace") or {}).get("model")
    return not model or model in (*names, traced)


def _clean(kind: str, path: Path, entry: Entry, work: Path) -> Path:
    """The file, or a copy whose record names no folder of this machine."""
    record: dict[str, Any] = {name: value for name, value in entry.record.items() if name != "key"}
    clean = without_paths(record)
    if clean == record:
        return path
    made = Cache(work).save(kind, entry.record["key"], entry.tensors, clean)
    target = work / kind / path.name
    if made != target:
        shutil.move(made, target)
    return target
