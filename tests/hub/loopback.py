"""Starting the loopback Hub as a process, arranging it, and running clients against it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Hub:
    """A running server. `url` is what HF_ENDPOINT shall be."""

    url: str
    folder: Path
    xet: bool

    def call(self, name: str, /, **given: Any) -> Any:
        """One request to /_admin/."""
        body = json.dumps(given).encode() if name not in ("log", "clear") else None
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/_admin/{name}", body)) as answer:
            return json.loads(answer.read())

    def fault(self, match: str, kind: str, **more: Any) -> None:
        """Arms a fault, see `tests.hub.faults.Fault`."""
        self.call("fault", match=match, kind=kind, **more)

    def log(self) -> list[dict[str, Any]]:
        """All requests since the last `clear`."""
        found: list[dict[str, Any]] = self.call("log")
        return found

    def clear(self) -> None:
        """Forgets faults and the log."""
        self.call("clear")

    def repo(self, name: str) -> dict[str, Any] | None:
        """The repository as it is stored, or None."""
        found: dict[str, Any] | None = self.call("repo", repo=name)
        return found

    def tree(self, name: str, revision: str = "main") -> dict[str, dict[str, Any]]:
        """Path -> size, oid, sha256, lfs, xet."""
        found: dict[str, dict[str, Any]] = self.call("tree", repo=name, revision=revision)
        return found

    def content(self, name: str, path: str, revision: str = "main") -> bytes:
        """What a file of the repository holds."""
        sha256: str = self.tree(name, revision)[path]["sha256"]
        return (self.folder / "objects" / sha256).read_bytes()

    def head(self, name: str) -> str:
        """The commit of the main branch."""
        repo = self.repo(name)
        assert repo is not None
        return str(repo["refs"]["refs/heads/main"])

    def seed(self, name: str, folder: Path, **settings: Any) -> str:
        """A repository with the files of a folder in one commit; returns the commit."""
        return str(self.call("seed", repo=name, folder=str(folder), settings=settings)["sha"])

    def environment(self, home: Path, token: str | None = "hf_writer", **more: str) -> dict[str, str]:
        """Environment of a client: this endpoint, its own cache, no other token."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING", "HUBEDIT"))}
        made = {
            **kept,
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home / "hf"),
            "HUBEDIT_CACHE": str(home / "hubedit"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "NO_COLOR": "1",
        }
        if not self.xet:
            made["HF_HUB_DISABLE_XET"] = "1"
        if token is not None:
            made["HF_TOKEN"] = token
        return {**made, **more}

    def python(
        self, code: str, home: Path, *arguments: str, token: str | None = "hf_writer", **more: str
    ) -> subprocess.CompletedProcess[str]:
        """Runs Python code as a client, in a process of its own."""
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env=self.environment(home, token, **more),
            capture_output=True,
            text=True,
            timeout=280,
            cwd=ROOT,
        )


@contextmanager
def serve(folder: Path, *, xet: bool = False, environment: Mapping[str, str] | None = None) -> Iterator[Hub]:
    """A server for as long as the block lasts."""
    command = [sys.executable, "-m", "tests.hub.server", str(folder), *(["--xet"] if xet else [])]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, **(environment or {})}
    )
    try:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        assert port, "the loopback Hub did not start"
        yield Hub(f"http://127.0.0.1:{port}", folder.resolve(), xet)
    finally:
        process.kill()
        process.wait()
