"""The endpoints of the loopback Hub that huggingface_hub 1.x and 2.x call for model repositories."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from tests.hub.commits import upload_mode
from tests.hub.files import FileRoutes
from tests.hub.store import MAIN, Refused, Store
from tests.hub.wire import Answer, Request
from tests.hub.xet import Xet

_REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"
_Route = tuple[str, re.Pattern[str], Callable[..., Answer]]


class Api(FileRoutes):
    """Answers requests. One lock around everything that reads or changes repositories."""

    def __init__(self, store: Store, xet: Xet | None) -> None:
        super().__init__(store, xet)
        self.lock = threading.RLock()
        self._routes: list[_Route] = []
        api = f"/api/(?:models|datasets)/{_REPO}"
        for method, path, answer in (
            ("GET", "/api/whoami-v2", self._whoami),
            ("POST", "/api/validate-yaml", self._validate_yaml),
            ("POST", "/api/repos/create", self._create),
            ("DELETE", "/api/repos/delete", self._delete),
            ("GET", f"{api}(/revision/(?P<revision>[^/]+))?", self._info),
            ("POST", f"{api}/preupload/(?P<revision>[^/]+)", self.preupload),
            ("POST", f"{api}/commit/(?P<revision>[^/]+)", self.commit),
            ("GET", f"{api}/tree/(?P<revision>[^/]+)(/(?P<path>.*))?", self.tree),
            ("POST", f"{api}/paths-info/(?P<revision>[^/]+)", self.paths),
            ("GET", f"{api}/refs", self._refs),
            ("GET", f"{api}/commits/(?P<revision>[^/]+)", self._commits),
            ("POST", f"{api}/(?P<kind>branch|tag)/(?P<name>[^/]+)", self._new_ref),
            ("DELETE", f"{api}/(?P<kind>branch|tag)/(?P<name>[^/]+)", self._drop_ref),
            ("POST", f"{api}/lfs-files/duplicate", self.duplicate),
            ("GET", f"{api}/discussions", self._discussions),
            ("GET", f"{api}/xet-(?P<kind>read|write)-token/(?P<revision>[^/]+)", self.xet_token),
            ("POST", f"/{_REPO}\\.git/info/lfs/objects/batch", self.batch),
            ("PUT", f"/_lfs/{_REPO}/(?P<oid>[0-9a-f]{{64}})", self.put),
            ("POST", f"/_lfs/{_REPO}/verify", self.verify),
            ("GET", f"(?:/datasets)?/{_REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", self.resolve),
        ):
            self._routes.append((method, re.compile(path), answer))

    def answer(self, request: Request) -> Answer:
        """Raises Refused for everything that the Hub refuses."""
        method = "GET" if request.method == "HEAD" else request.method
        for wanted, pattern, answer in self._routes:
            found = pattern.fullmatch(request.path)
            if wanted == method and found:
                parts = {name: unquote(part) for name, part in found.groupdict().items() if part is not None}
                if answer == self.put:  # long uploads run side by side
                    return answer(request, **parts)
                with self.lock:
                    return answer(request, **parts)
        if re.fullmatch(r"/api/models/[\w.-]+(/revision/.*)?", request.path):  # of no owner
            raise Refused(404 if request.account else 401, "RepoNotFound", "Repository not found")
        raise Refused(404, "", f"no route {request.method} {request.path}")

    def race(self, name: str, files: dict[str, str]) -> None:
        """Somebody else commits to the main branch."""
        with self.lock:
            repo = self.store.repos[name]
            old = self.store.resolve(repo, "main")
            new = {path: self.store.regular(text.encode()) for path, text in files.items()}
            more = {"title": "Meanwhile", "message": "", "author": "bob", "parent": old.sha}
            self.store.commit(repo, MAIN, {**old.tree, **new}, **more)

    def admin(self, name: str, given: dict[str, Any]) -> Any:
        """What the tests arrange and look at: `settings`, `repo`, `tree`, `stored`, `race`."""
        with self.lock:
            if name == "settings":
                self.copying = given.get("copying", self.copying)
                self.quota = given.get("quota", self.quota)
                for key, value in given.get("repo", {}).items():
                    setattr(self.store.repos[given["name"]], key, value)
            elif name == "race":
                self.race(given["repo"], given["files"])
            elif name == "seed":
                return {"sha": self._seed(given["repo"], Path(given["folder"]), given["settings"])}
            elif name == "repo":
                repo = self.store.repos.get(given["repo"])
                return None if repo is None else {**vars(repo)}
            elif name == "tree":
                repo = self.store.repos[given["repo"]]
                commit = self.store.resolve(repo, given.get("revision", "main"))
                return {path: vars(entry) for path, entry in commit.tree.items()}
            elif name == "stored":
                return self.xet.stored() if self.xet else 0
        return {}

    def _seed(self, name: str, folder: Path, settings: dict[str, Any]) -> str:
        """A repository with a folder's files, without a client. Large files are plain LFS objects."""
        repo = self.store.create(name, private=settings.pop("private", False), author=name.split("/")[0])
        old = self.store.resolve(repo, "main")
        tree = dict(old.tree)
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            path, content = file.relative_to(folder).as_posix(), file.read_bytes()
            tree[path] = self.store.regular(content)
            if upload_mode(path, len(content)) == "lfs":
                sha256 = tree[path].sha256
                repo.lfs[sha256] = len(content)
                tree[path] = self.store.large(sha256, len(content), None)
        for key, value in settings.items():
            setattr(repo, key, value)
        more = {"title": "Upload", "message": "", "author": old.author, "parent": old.sha}
        return self.store.commit(repo, MAIN, tree, **more).sha

    def _whoami(self, request: Request) -> Answer:
        if request.account is None:
            raise Refused(401, "", "Invalid credentials in Authorization header")
        return Answer.json(request.account.whoami())

    def _validate_yaml(self, request: Request) -> Answer:
        text = request.json()["content"]
        if not re.match(r"---\n.*?\n---\n", text, re.DOTALL):
            return Answer.json({"errors": [], "warnings": [{"message": "empty or missing yaml metadata"}]})
        return Answer.json({"errors": [], "warnings": []})

    def _create(self, request: Request) -> Answer:
        given, account = request.json(), request.account
        owner = given.get("organization") or (account.name if account else "")
        if account is None or not account.writes(owner):
            raise Refused(403, "", f"You don't have the rights to create a model under the namespace {owner}")
        name = f"{owner}/{given['name']}"
        if name in self.store.repos:
            message = "You already created this model repo"
            return Answer.json({"error": message, "url": f"{request.url}/{name}", "name": name}, 409)
        private = given.get("visibility", "public") == "private" or bool(given.get("private"))
        repo = self.store.create(name, private=private, author=account.name)
        return Answer.json({"url": f"{request.url}/{repo.name}", "name": repo.name, "id": repo.name})

    def _delete(self, request: Request) -> Answer:
        given = request.json()
        name = f"{given.get('organization') or (request.account and request.account.name)}/{given['name']}"
        self.repo(request, name, write=True)
        self.store.delete(name)
        return Answer.json({})

    def _info(self, request: Request, repo: str, revision: str = "main") -> Answer:
        found = self.repo(request, repo)
        commit = self.store.resolve(found, revision)
        siblings = [{"rfilename": path} for path in commit.tree]
        return Answer.json(
            {
                "id": repo,
                "modelId": repo,
                "author": repo.split("/")[0],
                "sha": commit.sha,
                "private": found.private,
                "gated": "manual" if found.gated else False,
                "disabled": False,
                "lastModified": commit.date,
                "createdAt": commit.date,
                "siblings": siblings,
                "tags": [],
                "downloads": 0,
                "likes": 0,
            }
        )

    def _refs(self, request: Request, repo: str) -> Answer:
        found = self.repo(request, repo)
        kinds: dict[str, list[dict[str, str]]] = {
            "branches": [],
            "tags": [],
            "converts": [],
            "pullRequests": [],
        }
        places = {"refs/heads/": "branches", "refs/tags/": "tags", "refs/pr/": "pullRequests"}
        for ref, sha in found.refs.items():
            for prefix, kind in places.items():
                if ref.startswith(prefix):
                    name = ref if kind == "pullRequests" else ref.removeprefix(prefix)
                    kinds[kind].append({"name": name, "ref": ref, "targetCommit": sha})
        return Answer.json(kinds)

    def _new_ref(self, request: Request, repo: str, kind: str, name: str) -> Answer:
        found, given = self.repo(request, repo, write=True), json.loads(request.read() or b"{}")
        ref = f"refs/heads/{name}" if kind == "branch" else f"refs/tags/{given['tag']}"
        if ref in found.refs:
            raise Refused(409, "", "Reference already exists")
        found.refs[ref] = self.store.resolve(
            found, given.get("startingPoint") or (name if kind == "tag" else "main")
        ).sha
        self.store.save(found)
        return Answer.json({})

    def _drop_ref(self, request: Request, repo: str, kind: str, name: str) -> Answer:
        found = self.repo(request, repo, write=True)
        if found.refs.pop(f"refs/{'heads' if kind == 'branch' else 'tags'}/{name}", None) is None:
            raise Refused(404, "RevisionNotFound", name)
        self.store.save(found)
        return Answer.json({})

    def _commits(self, request: Request, repo: str, revision: str) -> Answer:
        found = self.repo(request, repo)
        keys = self.store.history(self.store.resolve(found, revision))
        return Answer.json(
            [
                {
                    "id": c.sha,
                    "title": c.title,
                    "message": c.message,
                    "date": c.date,
                    "authors": [{"user": c.author}],
                }
                for c in keys
            ]
        )

    def _discussions(self, request: Request, repo: str) -> Answer:
        found = [dict(d) for d in self.repo(request, repo).discussions]
        author = request.query.get("author", [None])[0]
        chosen = [d for d in found if author in (None, d["author"]["name"])]
        return Answer.json({"discussions": chosen, "count": len(chosen), "start": 0})
