"""Requests and answers of the loopback Hub, apart from its sockets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.hub.accounts import TOKENS, Account
from tests.hub.faults import Line

CHUNK = 1 << 16


class Dropped(Exception):
    """The connection is closed on purpose."""


@dataclass
class Answer:
    """`body`: bytes, or a slice (path, start, length) of a file; `head_only`: headers without it."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | tuple[Path, int, int] = b""
    head_only: bool = False

    @classmethod
    def json(cls, value: Any, status: int = 200, **headers: str) -> Answer:
        """JSON data."""
        return cls(status, {"Content-Type": "application/json", **headers}, json.dumps(value).encode())


class Request:
    """What a route needs to know; the body is read by `chunks` or `read`, once."""

    def __init__(self, handler: BaseHTTPRequestHandler, line: Line, drop_at: int | None) -> None:
        self.handler, self.line, self.drop_at = handler, line, drop_at
        self.method = handler.command
        parts = urlsplit(handler.path)
        self.path, self.query = parts.path, parse_qs(parts.query)
        self.headers = handler.headers
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        self.token = token
        self.account: Account | None = TOKENS.get(token)
        self.url = f"http://{self.headers.get('Host')}"
        self._left: int | None = int(self.headers.get("Content-Length") or 0)
        if "chunked" in (self.headers.get("Transfer-Encoding") or ""):
            self._left = None

    def chunks(self) -> Iterator[bytes]:
        """The body, piece by piece. Raises Dropped where a fault says so, or the client has gone."""
        if self._left is None:
            while size := int(self.handler.rfile.readline().split(b";")[0], 16):
                yield self._count(self.handler.rfile.read(size))
                self.handler.rfile.readline()
            self.handler.rfile.readline()
            self._left = 0
        while self._left:
            data = self.handler.rfile.read(min(CHUNK, self._left))
            if not data:
                raise Dropped
            self._left -= len(data)
            yield self._count(data)

    def read(self) -> bytes:
        """The whole body."""
        return b"".join(self.chunks())

    def json(self) -> Any:
        """The body as JSON data."""
        return json.loads(self.read())

    def _count(self, data: bytes) -> bytes:
        self.line.received += len(data)
        if self.drop_at is not None and self.line.received >= self.drop_at:
            raise Dropped
        return data
