"""Single tensors over a network that fails: the rest is asked for again, and what comes is exact."""

from __future__ import annotations

import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from hubedit.checkpoint.merge_record import Touched
from hubedit.checkpoint.read import Checkpoint
from hubedit.checkpoint.remote import Remote
from hubedit.errors import CheckpointError
from hubedit.progress import Silent
from hubedit.weights.blocks import tensor_digest
from tests.checkpoint.tiny import MODULES, tiny

NAME = f"{MODULES[1]}.weight"


class Server(ThreadingHTTPServer):
    """Serves ranges of one folder. `plan`: for each request in turn a status, or after how many bytes of the
    answer the connection drops; afterwards all goes well.
    """

    folder: Path
    plan: list[tuple[str, int]]
    ranges: list[tuple[int, int]]


class Handler(BaseHTTPRequestHandler):
    """`server` is a Server."""

    server: Any
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"])
        assert found is not None
        start, end = int(found[1]), int(found[2]) + 1
        self.server.ranges.append((start, end))
        kind, value = self.server.plan.pop(0) if self.server.plan else ("", 0)
        data = (self.server.folder / self.path.rpartition("/")[2]).read_bytes()[start:end]
        self.send_response(value if kind == "status" else 206)
        self.send_header("Content-Length", "0" if kind == "status" else str(len(data)))
        self.end_headers()
        if kind == "status":
            return
        self.wfile.write(data[:value] if kind == "drop" else data)
        if kind == "drop":
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


def remote(tmp_path: Path) -> Remote:
    """The repository on the server, asked again without a wait."""
    return Remote("owner/m", "c" * 40, tmp_path / "scratch", Silent(), waits=(0.0,) * 4)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    made = Server(("127.0.0.1", 0), Handler)
    made.folder, made.plan, made.ranges = tiny(tmp_path / "m"), [], []
    port = made.server_address[1]
    monkeypatch.setattr("huggingface_hub.hf_hub_url", lambda _, file, **__: f"http://127.0.0.1:{port}/{file}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # nothing leaves this machine
    thread = Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def touched(folder: Path) -> Touched:
    entry = Checkpoint.open(folder).entry(NAME)
    return Touched(MODULES[1], False, (6, 10), entry.file.name, entry.dtype, tensor_digest(entry))


def test_a_connection_that_drops_is_taken_up_where_it_was(server: Server, tmp_path: Path) -> None:
    wanted = touched(server.folder)
    # the length, the header and the tensor: each is cut, once before any byte
    server.plan = [("drop", 3), ("", 0), ("drop", 0), ("status", 503), ("drop", 50), ("", 0), ("drop", 100)]
    found = remote(tmp_path).fetch(NAME, wanted)
    assert found is not None and tensor_digest(found) == wanted.base_sha256
    assert not server.plan
    (start, end), (again, last) = server.ranges[-2:]
    assert (again, last) == (start + 100, end)


def test_many_drops_are_survived_as_long_as_bytes_come(server: Server, tmp_path: Path) -> None:
    wanted = touched(server.folder)
    server.plan = [("", 0), ("", 0), *[("drop", 10)] * 9]
    found = remote(tmp_path).fetch(NAME, wanted)
    assert found is not None and tensor_digest(found) == wanted.base_sha256


@pytest.mark.parametrize(
    ("kind", "value", "requests"),
    [("drop", 0, 5), ("status", 503, 5), ("status", 404, 1), ("status", 403, 1)],
)
def test_what_does_not_pass_is_one_line(
    server: Server, tmp_path: Path, kind: str, value: int, requests: int
) -> None:
    wanted = touched(server.folder)
    server.plan = [(kind, value)] * 20
    with pytest.raises(CheckpointError):
        remote(tmp_path).fetch(NAME, wanted)
    assert len(server.ranges) == requests
