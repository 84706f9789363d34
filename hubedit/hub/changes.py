"""What a push would change: the files that shall be there against those that are."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from hubedit.hub.account import with_retries

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi


@dataclass(frozen=True)
class Remote:
    """One file of a repository. `oid`: git's hash; `sha256`: of an LFS file's content, else ""."""

    size: int
    oid: str
    sha256: str


Tree = Mapping[str, Remote]


@dataclass(frozen=True, eq=False)
class Upload:
    """A file to send: from the disk, or bytes."""

    source: Path | bytes

    @cached_property
    def size(self) -> int:
        """In bytes."""
        return len(self.source) if isinstance(self.source, bytes) else self.source.stat().st_size

    @cached_property
    def sha256(self) -> str:
        """Of the content."""
        return self._hash(hashlib.sha256())

    def same(self, there: Remote) -> bool:
        """Whether the repository holds this content already."""
        if there.size != self.size:
            return False
        if there.sha256:
            return there.sha256 == self.sha256
        return there.oid == self._hash(hashlib.sha1(b"blob %d\0" % self.size))

    def operation(self, path: str) -> CommitOperationAdd:
        """What the client commits."""
        from huggingface_hub import CommitOperationAdd

        return CommitOperationAdd(path, self.source)

    def _hash(self, digest: hashlib._Hash) -> str:
        if isinstance(self.source, bytes):
            digest.update(self.source)
            return digest.hexdigest()
        with self.source.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Sent:
    """A large file whose content is at the Hub already and only has to be committed."""

    add: CommitOperationAdd
    size: int
    sha256: str

    def same(self, there: Remote) -> bool:
        """Whether the repository holds this content already."""
        return there.sha256 == self.sha256

    def operation(self, path: str) -> CommitOperationAdd:
        """What the client commits; a commit that failed leaves it usable."""
        return self.add


@dataclass(frozen=True, eq=False)
class Copy:
    """A file that the server copies. `otherwise`: what to send where it refuses to."""

    repo: str
    commit: str
    path: str
    there: Remote
    otherwise: Callable[[], Upload | Sent]

    @property
    def size(self) -> int:
        """In bytes."""
        return self.there.size

    def same(self, there: Remote) -> bool:
        """Whether the repository holds this content already."""
        if self.there.sha256 or there.sha256:
            return self.there.sha256 == there.sha256
        return self.there.oid == there.oid


Content = Upload | Sent | Copy


@dataclass(frozen=True)
class Changes:
    """`put`: what is new or other than before, by path; `deleted`, `kept`: paths."""

    put: Mapping[str, Content]
    deleted: tuple[str, ...]
    kept: tuple[str, ...]

    @property
    def nothing(self) -> bool:
        """Whether the repository is as it shall be."""
        return not self.put and not self.deleted

    @property
    def uploaded(self) -> Mapping[str, Content]:
        """What is sent from here."""
        return {path: content for path, content in self.put.items() if not isinstance(content, Copy)}

    @property
    def copied(self) -> Mapping[str, Copy]:
        """What the server copies."""
        return {path: content for path, content in self.put.items() if isinstance(content, Copy)}


def compare(wanted: Mapping[str, Content], stale: Iterable[str], tree: Tree) -> Changes:
    """What must be done to `tree`. `stale`: paths that must not be there. Files of others stay."""
    same = {path for path, content in wanted.items() if path in tree and content.same(tree[path])}
    return Changes(
        {path: wanted[path] for path in sorted(wanted) if path not in same},
        tuple(sorted(path for path in set(stale) - set(wanted) if path in tree)),
        tuple(sorted(same)),
    )


def read_tree(api: HfApi, repo: str, commit: str) -> dict[str, Remote]:
    """All files of a commit. Raises HubError."""
    from huggingface_hub import RepoFile

    found = with_retries(
        lambda: list(api.list_repo_tree(repo, recursive=True, revision=commit)), repo, commit
    )
    return {
        file.path: Remote(file.size, file.blob_id, file.lfs.sha256 if file.lfs else "")
        for file in found
        if isinstance(file, RepoFile)
    }


def resolve(api: HfApi, repo: str, revision: str) -> str:
    """The commit that a revision means now. Raises HubError."""
    info = with_retries(lambda: api.repo_info(repo, revision=revision), repo, revision)
    return str(info.sha)
