"""Endpoints of the loopback Hub about files: reading them, uploading them, committing them."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import parse_qs

from tests.hub.commits import apply_lines, upload_mode
from tests.hub.store import Commit, Entry, Refused, Repo, Store
from tests.hub.wire import Answer, Request
from tests.hub.xet import Xet


class FileRoutes:
    """`copying`: whether files may be copied between repositories; `quota`: bytes a repository may hold."""

    def __init__(self, store: Store, xet: Xet | None) -> None:
        self.store, self.xet = store, xet
        self.copying = True
        self.quota: int | None = None

    def repo(self, request: Request, name: str, *, write: bool = False, files: bool = False) -> Repo:
        repo, account = self.store.repos.get(name), request.account
        owner = name.split("/")[0]
        if repo is None or (repo.private and not (account and account.owns(owner))):
            raise Refused(404 if account else 401, "RepoNotFound", "Repository not found")
        if files and repo.gated and not (account and account.owns(owner)):
            raise Refused(403 if account else 401, "GatedRepo", f"Access to model {name} is restricted")
        if write and not (account and account.writes(owner)):
            raise Refused(403, "", "You don't have the rights to write to this repository")
        return repo

    def tree(self, request: Request, repo: str, revision: str, path: str = "") -> Answer:
        commit = self.store.resolve(self.repo(request, repo), revision)
        prefix = f"{path.rstrip('/')}/" if path else ""
        rows, folders = [], set()
        for name, entry in commit.tree.items():
            if name.startswith(prefix):
                rows.append(_row(name, entry))
                parts = name.split("/")
                folders |= {"/".join(parts[:n]) for n in range(1, len(parts))}
        rows += [{"type": "directory", "path": f, "oid": "0" * 40, "size": 0} for f in sorted(folders)]
        return Answer.json(rows)

    def paths(self, request: Request, repo: str, revision: str) -> Answer:
        commit = self.store.resolve(self.repo(request, repo), revision)
        raw = request.read().decode()
        wanted = json.loads(raw)["paths"] if raw.startswith("{") else parse_qs(raw)["paths"]
        rows = [_row(path, commit.tree[path]) for path in wanted if path in commit.tree]
        if "expand=true" in raw.lower():
            for row in rows:
                last = self._last_change(commit, row["path"])
                row["lastCommit"] = {"id": last.sha, "title": last.title, "date": last.date}
        return Answer.json(rows)

    def _last_change(self, commit: Commit, path: str) -> Commit:
        """The commit that gave a file the content it has."""
        last = commit
        for older in self.store.history(commit):
            if older.tree.get(path) != commit.tree[path]:
                break
            last = older
        return last

    def resolve(self, request: Request, repo: str, revision: str, path: str) -> Answer:
        found = self.repo(request, repo, files=True)
        commit = self.store.resolve(found, revision)
        if path not in commit.tree:
            raise Refused(404, "EntryNotFound", f"Entry not found: {path}")
        entry = commit.tree[path]
        etag = entry.sha256 if entry.lfs else entry.oid
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": commit.sha, "Accept-Ranges": "bytes"}
        if entry.lfs:
            headers |= {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(entry.size)}
            if self.xet and entry.xet and request.method == "HEAD":
                refresh = f"{request.url}/api/models/{repo}/xet-read-token/{commit.sha}"
                headers |= {"X-Xet-Hash": entry.xet, "X-Xet-Refresh-Route": refresh}
        if request.method != "HEAD" and self.xet:
            self.xet.materialise(entry.xet, entry.size, self.store.object(entry.sha256))
        start, length = 0, entry.size
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range") or "")
        if wanted:
            start = int(wanted[1])
            if start >= entry.size:
                raise Refused(416, "", "out of range")
            length = min(int(wanted[2] or entry.size - 1), entry.size - 1) - start + 1
            headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{entry.size}"
        body = (self.store.object(entry.sha256), start, length)
        return Answer(206 if wanted else 200, headers, body)

    def preupload(self, request: Request, repo: str, revision: str) -> Answer:
        # a pull request needs no right to write
        found = self.repo(request, repo, write="create_pr" not in request.query)
        tree = self.store.resolve(found, revision).tree
        files = [
            {
                "path": file["path"],
                "uploadMode": upload_mode(file["path"], file["size"]),
                "shouldIgnore": False,
                "oid": _known(tree.get(file["path"])),
            }
            for file in request.json()["files"]
        ]
        return Answer.json({"files": files})

    def batch(self, request: Request, repo: str) -> Answer:
        found, given = self.repo(request, repo), request.json()
        objects = []
        for item in given["objects"]:
            row: dict[str, Any] = {"oid": item["oid"], "size": item["size"]}
            if self.quota is not None and sum(found.lfs.values()) + item["size"] > self.quota:
                raise Refused(403, "", "Private repository storage limit reached, please upgrade your plan")
            if item["oid"] not in found.lfs:
                base = f"{request.url}/_lfs/{repo}"
                row["actions"] = {
                    "upload": {"href": f"{base}/{item['oid']}"},
                    "verify": {"href": f"{base}/verify"},
                }
            objects.append(row)
        return Answer.json({"transfer": "basic", "objects": objects})

    def put(self, request: Request, repo: str, oid: str) -> Answer:
        self.store.put(oid, request.chunks())
        return Answer()

    def verify(self, request: Request, repo: str) -> Answer:
        given, found = request.json(), self.repo(request, repo)
        path = self.store.object(given["oid"])
        if not path.is_file() or path.stat().st_size != given["size"]:
            raise Refused(404, "", "the object was not uploaded")
        found.lfs[given["oid"]] = given["size"]
        self.store.save(found)
        return Answer.json({})

    def duplicate(self, request: Request, repo: str) -> Answer:
        source, given = self.repo(request, repo, files=True), request.json()
        target = self.repo(request, given["target"]["name"], write=True)
        failed = []
        for file in given["files"]:
            if not self.copying or file["sha256"] not in source.lfs:
                failed.append({"sha256": file["sha256"], "error": "copying is not possible across regions"})
            else:
                target.lfs[file["sha256"]] = source.lfs[file["sha256"]]
        self.store.save(target)
        return Answer.json({"success": [], "failed": failed})

    def xet_token(self, request: Request, repo: str, kind: str, revision: str) -> Answer:
        self.repo(request, repo, files=True, write=kind == "write" and revision != "None")
        if self.xet is None:
            raise Refused(404, "", "no Xet here")
        headers = self.xet.headers()
        # hf_xet reads the body, huggingface_hub the headers
        names = {"X-Xet-Cas-Url": "casUrl", "X-Xet-Access-Token": "accessToken"}
        value: dict[str, Any] = {names[name]: headers[name] for name in names}
        value["exp"] = int(headers["X-Xet-Token-Expiration"])
        return Answer.json(value, 200, **headers)

    def commit(self, request: Request, repo: str, revision: str) -> Answer:
        new_pr = "create_pr" in request.query
        found = self.repo(request, repo, write=not new_pr)
        account = request.account
        if account is None or account.role == "read":
            raise Refused(403, "", "this token cannot open pull requests")
        lines = [json.loads(line) for line in request.read().splitlines() if line.strip()]
        ref = self.store.ref(found, revision)
        if ref is None:
            raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        head = self.store.resolve(found, revision)
        header = lines[0]["value"]
        if not new_pr and header.get("parentCommit") not in (None, head.sha):
            raise Refused(412, "", "A commit has happened since. Please refresh and try again.")
        tree = apply_lines(self.store, self.xet, found, head.tree, lines[1:])
        url = ""
        if new_pr:
            number = len(found.discussions) + 1
            ref, url = f"refs/pr/{number}", f"{request.url}/{repo}/discussions/{number}"
            found.discussions.append(_discussion(repo, number, header["summary"], account.name, head))
        more = {"title": header["summary"], "message": header.get("description", "")}
        made = self.store.commit(found, ref, tree, **more, author=account.name, parent=head.sha)
        value = {
            "success": True,
            "commitUrl": f"{request.url}/{repo}/commit/{made.sha}",
            "commitOid": made.sha,
        }
        return Answer.json({**value, "pullRequestUrl": url or None, "hookOutput": ""})


def _row(path: str, entry: Entry) -> dict[str, Any]:
    row: dict[str, Any] = {"type": "file", "path": path, "size": entry.size, "oid": entry.oid}
    if entry.lfs:
        row["lfs"] = {"oid": entry.sha256, "size": entry.size, "pointerSize": 130}
        row["xetHash"] = entry.xet
    return row


def _known(entry: Entry | None) -> str | None:
    return None if entry is None else entry.sha256 if entry.lfs else entry.oid


def _discussion(repo: str, number: int, title: str, author: str, head: Commit) -> dict[str, Any]:
    return {
        "num": number,
        "title": title,
        "author": {"name": author},
        "createdAt": head.date,
        "status": "open",
        "repo": {"name": repo, "type": "model"},
        "isPullRequest": True,
    }
