"""What a commit's lines do to a tree."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from tests.hub.store import Entry, Refused, Repo, Store
from tests.hub.xet import Xet

_LARGE = (".safetensors", ".png", ".bin", ".pt")
_LIMIT = 5_000_000  # larger ones are LFS files whatever their name


def upload_mode(path: str, size: int) -> str:
    """Whether a file is stored as an LFS object."""
    return "lfs" if path.endswith(_LARGE) or size > _LIMIT else "regular"


def apply_lines(
    store: Store, xet: Xet | None, repo: Repo, tree: Mapping[str, Entry], lines: Sequence[Mapping[str, Any]]
) -> dict[str, Entry]:
    """The tree after a commit's lines; all of them or none. Raises Refused."""
    new = dict(tree)
    for line in lines:
        key, value = line["key"], line["value"]
        path = value["path"]
        if key == "file":
            content = base64.b64decode(value["content"])
            if upload_mode(path, len(content)) == "lfs" and content:
                raise Refused(400, "", f"{path} must be uploaded as an LFS file")
            new[path] = store.regular(content)
        elif key == "lfsFile":
            new[path] = _large(store, xet, repo, value["oid"])
        elif key == "deletedFile":
            if path not in new:
                raise Refused(404, "EntryNotFound", f"A file with this name doesn't exist: {path}")
            del new[path]
        elif key == "deletedFolder":
            new = {name: entry for name, entry in new.items() if not name.startswith(path.rstrip("/") + "/")}
        else:
            raise Refused(400, "", f"unknown operation {key}")
    return new


def _large(store: Store, xet: Xet | None, repo: Repo, sha256: str) -> Entry:
    found = xet.find(sha256) if xet else None
    if found:
        repo.lfs[sha256] = found[1]
    if sha256 not in repo.lfs:
        raise Refused(400, "", f"the LFS object {sha256[:8]} was not uploaded to {repo.name}")
    return store.large(sha256, repo.lfs[sha256], found[0] if found else None)
