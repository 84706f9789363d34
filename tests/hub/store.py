"""Repositories in a folder, as git sees them: immutable commits by their hash, and refs that point to them.

Layout: `objects/<sha256>` (contents), `commits/<sha>.json`, `repos/<owner>--<name>.json`. Everything is
written under a temporary name and renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

MAIN = "refs/heads/main"
_START = datetime(2025, 1, 1, tzinfo=UTC)
ATTRIBUTES = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n*.png filter=lfs diff=lfs merge=lfs -text\n"


class Refused(Exception):
    """A request that the Hub answers with an error: `status`, `X-Error-Code`, `X-Error-Message`."""

    def __init__(self, status: int, code: str, message: str = "") -> None:
        super().__init__(message or code)
        self.status, self.code, self.message = status, code, message or code


@dataclass(frozen=True)
class Entry:
    """One file of a commit. `oid`: git's blob hash (of the pointer, for an LFS file)."""

    size: int
    oid: str
    sha256: str
    lfs: bool
    xet: str | None = None


@dataclass
class Repo:
    """`lfs`: hashes of the LFS objects that were uploaded to, or copied into, this repository."""

    name: str
    private: bool
    gated: bool = False
    refs: dict[str, str] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)
    lfs: dict[str, int] = field(default_factory=dict)
    discussions: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Commit:
    """An immutable snapshot."""

    sha: str
    parent: str
    title: str
    message: str
    author: str
    date: str
    tree: dict[str, Entry]


class Store:
    """All repositories. The caller holds a lock around every method that changes something."""

    def __init__(self, folder: Path, *, xet: bool = False) -> None:
        self.folder, self.xet = folder, xet
        for part in ("objects", "commits", "repos"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        self.repos = {repo.name: repo for repo in self._read_repos()}

    def create(self, name: str, *, private: bool, author: str) -> Repo:
        """A new repository with its first commit, as the Hub makes it."""
        if name in self.repos:
            raise Refused(409, "RepoExists", "You already created this model repo")
        repo = self.repos[name] = Repo(name, private)
        tree = {".gitattributes": self.regular(ATTRIBUTES)}
        self.commit(repo, MAIN, tree, title="initial commit", message="", author=author, parent="")
        return repo

    def delete(self, name: str) -> None:
        """Removes a repository; its commits stay on the disk, unreachable."""
        if self.repos.pop(name, None) is not None:
            self._repo_file(name).unlink()

    def save(self, repo: Repo) -> None:
        """Writes the repository's refs and lists."""
        self._write(self._repo_file(repo.name), json.dumps(asdict(repo)).encode())

    def commit(
        self,
        repo: Repo,
        ref: str,
        tree: Mapping[str, Entry],
        *,
        title: str,
        message: str,
        author: str,
        parent: str,
    ) -> Commit:
        """A new commit that `ref` points to afterwards."""
        date = (_START + timedelta(minutes=len(list((self.folder / "commits").iterdir())))).isoformat()
        value = {
            "parent": parent,
            "title": title,
            "message": message,
            "author": author,
            "date": date.replace("+00:00", ".000Z"),
            "tree": {path: asdict(tree[path]) for path in sorted(tree)},
        }
        text = json.dumps({**value, "repo": repo.name}).encode()
        sha = hashlib.sha1(text).hexdigest()
        self._write(self.folder / "commits" / f"{sha}.json", text)
        repo.refs[ref] = sha
        repo.commits.append(sha)
        self.save(repo)
        return self.at(sha)

    def at(self, sha: str) -> Commit:
        """The commit with this hash."""
        value = json.loads((self.folder / "commits" / f"{sha}.json").read_bytes())
        value.pop("repo")
        value["tree"] = {path: Entry(**entry) for path, entry in value["tree"].items()}
        return Commit(sha=sha, **value)

    def ref(self, repo: Repo, revision: str) -> str | None:
        """The full name of a branch, tag or pull request; None for a commit's hash."""
        for name in (revision, f"refs/heads/{revision}", f"refs/tags/{revision}"):
            if name in repo.refs:
                return name
        return None

    def resolve(self, repo: Repo, revision: str) -> Commit:
        """The commit of a branch, a tag, a pull request or a hash. Raises Refused."""
        name = self.ref(repo, revision)
        if name is None and revision not in repo.commits:
            raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return self.at(repo.refs[name] if name is not None else revision)

    def history(self, commit: Commit) -> Iterator[Commit]:
        """The commit and its ancestors, newest first."""
        while True:
            yield commit
            if not commit.parent:
                return
            commit = self.at(commit.parent)

    def regular(self, content: bytes) -> Entry:
        """Stores a small file."""
        sha256 = hashlib.sha256(content).hexdigest()
        self._write(self.object(sha256), content)
        return Entry(len(content), _blob(content), sha256, lfs=False)

    def large(self, sha256: str, size: int, xet: str | None) -> Entry:
        """An LFS file, whose content is stored already."""
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
        # where nobody uses Xet any hash will do: the client only asks whether there is one
        return Entry(size, _blob(pointer.encode()), sha256, lfs=True, xet=xet if self.xet else sha256)

    def object(self, sha256: str) -> Path:
        """Where a content lies."""
        return self.folder / "objects" / sha256

    def put(self, sha256: str, chunks: Iterable[bytes]) -> None:
        """Stores a content that must have this hash; half a content is never kept. Raises Refused."""
        part = self.folder / "objects" / f".{uuid.uuid4().hex}"
        digest = hashlib.sha256()
        try:
            with part.open("wb") as file:
                for chunk in chunks:
                    digest.update(chunk)
                    file.write(chunk)
            if digest.hexdigest() != sha256:
                raise Refused(400, "BadDigest", "the content does not have the announced hash")
            os.replace(part, self.object(sha256))
        finally:
            part.unlink(missing_ok=True)

    def _read_repos(self) -> Iterator[Repo]:
        for file in sorted((self.folder / "repos").glob("*.json")):
            yield Repo(**json.loads(file.read_bytes()))

    def _repo_file(self, name: str) -> Path:
        return self.folder / "repos" / f"{name.replace('/', '--')}.json"

    def _write(self, path: Path, content: bytes) -> None:
        part = path.with_name(f".{uuid.uuid4().hex}")
        part.write_bytes(content)
        os.replace(part, path)


def _blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
