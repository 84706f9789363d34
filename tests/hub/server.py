"""A Hub on 127.0.0.1: standard library only, run as a process of its own, for the unmodified client.

`python -m tests.hub.server FOLDER [--xet]` prints its port. Routes under `/_admin/` seed repositories, arm
faults and read the log; everything else is in `tests.hub.api`.
"""

from __future__ import annotations

import argparse
import socket
import struct
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.hub.api import Api
from tests.hub.faults import Fault, Journal, Line
from tests.hub.store import Refused, Store
from tests.hub.wire import CHUNK, Answer, Dropped, Request
from tests.hub.xet import Xet


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    wbufsize = CHUNK
    api: Api
    journal: Journal

    def do_GET(self) -> None:
        line = Line(self.command, self.path)
        fault = None if self.path.startswith("/_admin/") else self.journal.take(self.command, self.path)
        line.fault = fault.kind if fault else ""
        if not self.path.startswith("/_admin/"):
            self.journal.begin()
        try:
            self._handle(line, fault)
        except (Dropped, ConnectionError):
            self._reset()
        finally:
            if not self.path.startswith("/_admin/"):
                self.journal.add(line)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def _handle(self, line: Line, fault: Fault | None) -> None:
        request = Request(self, line, fault.at if fault and fault.kind == "drop-request" else None)
        if fault and fault.kind == "slow":
            time.sleep(fault.seconds)
        if fault and fault.kind == "race":
            self.api.race(fault.repo, fault.files)
        if fault and fault.kind == "drop-request" and fault.at == 0:
            raise Dropped
        if fault and fault.kind == "status":
            request.read()
            answer = _error(fault.status, fault.code, fault.message or "a fault")
        else:
            answer = self._answer(request)
        if fault and fault.kind == "lost":
            raise Dropped
        self._send(answer, line, fault.at if fault and fault.kind == "drop-response" else None)

    def _answer(self, request: Request) -> Answer:
        try:
            if request.path.startswith("/_admin/"):
                return self._admin(request)
            return self.api.answer(request)
        except Refused as error:
            return _error(error.status, error.code, error.message)
        finally:
            for _ in request.chunks():  # an unread body would be taken for the next request
                pass

    def _admin(self, request: Request) -> Answer:
        name = request.path.removeprefix("/_admin/")
        if name == "fault":
            self.journal.arm(Fault(**request.json()))
        elif name == "clear":
            self.journal.clear()
        elif name == "log":
            return Answer.json(self.journal.lines())
        else:
            return Answer.json(self.api.admin(name, request.json()))
        return Answer.json({})

    def _send(self, answer: Answer, line: Line, drop_at: int | None) -> None:
        body = answer.body
        length = len(body) if isinstance(body, bytes) else body[2]
        line.status = answer.status
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if answer.head_only or self.command == "HEAD":
            self.wfile.flush()
            return
        for piece in _pieces(body):
            if drop_at is not None and line.sent + len(piece) >= drop_at:
                self.wfile.write(piece[: drop_at - line.sent])
                self.wfile.flush()
                raise Dropped
            self.wfile.write(piece)
            line.sent += len(piece)
        self.wfile.flush()

    def _reset(self) -> None:
        """Closes the connection the hard way, as a broken network does."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on stderr: the log is asked for."""


def _pieces(body: bytes | tuple[Path, int, int]) -> Iterator[bytes]:
    if isinstance(body, bytes):
        for at in range(0, len(body), CHUNK):
            yield body[at : at + CHUNK]
        return
    path, start, length = body
    with path.open("rb") as file:
        file.seek(start)
        while length:
            data = file.read(min(CHUNK, length))
            length -= len(data)
            yield data


def _error(status: int, code: str, message: str) -> Answer:
    headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
    return Answer.json({"error": message}, status, **headers)


class Server(ThreadingHTTPServer):
    """Threads end with the process; a client that has gone is no error."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A dropped connection ends in an error while its files are closed: expected."""


def main() -> None:
    """Serves until it is killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--xet", action="store_true")
    given = parser.parse_args()
    folder = given.folder.resolve()
    Handler.journal = Journal()
    Handler.api = Api(Store(folder, xet=given.xet), Xet(folder / "cas") if given.xet else None)
    server = Server(("127.0.0.1", 0), Handler)
    sys.stdout.write(f"{server.server_address[1]}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
