"""The loopback Hub's view of Xet storage: the stock hf_xet wheel with a folder as its server.

The client writes chunks and shards into the folder by itself (`local:///folder` as the CAS address); the
Hub only has to find out which Xet file belongs to an LFS hash, which the shards say.
Shard format: https://huggingface.co/docs/xet/shard
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

_END = b"\xff" * 32
_VERIFIED, _HAS_SHA = 1 << 31, 1 << 30
_ROW = 48


class Xet:
    """A folder that serves as content-addressed storage."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def headers(self) -> dict[str, str]:
        """What a Xet token request is answered with."""
        return {
            "X-Xet-Cas-Url": f"local://{self.folder}",
            "X-Xet-Access-Token": "xet",
            "X-Xet-Token-Expiration": str(int(time.time()) + 3600),
        }

    def find(self, sha256: str) -> tuple[str, int] | None:
        """(Xet hash, size) of an uploaded content, or None."""
        for shard in sorted((self.folder / "xet" / "xorbs" / "shards").glob("*.mdb")):
            for found, file_hash, size in _files(shard.read_bytes()):
                if found == sha256:
                    return file_hash, size
        return None

    def stored(self) -> int:
        """Bytes of all chunks that were ever uploaded."""
        files = (self.folder / "xet" / "xorbs" / "xorbs").glob("default.*")
        return sum(file.stat().st_size for file in files if file.suffix != ".tagset")

    def materialise(self, name: str | None, size: int, path: Path) -> None:
        """Writes a content that only Xet holds to a plain file, for a client that asks over HTTP."""
        if name is None or path.is_file():
            return
        hf_xet = import_module("hf_xet")

        headers = {key.removeprefix("X-Xet-").lower(): value for key, value in self.headers().items()}
        part = path.with_suffix(".part")
        with hf_xet.XetSession().new_file_download_group(
            endpoint=headers["cas-url"],
            token=headers["access-token"],
            token_expiry_unix_secs=int(headers["token-expiration"]),
        ) as group:
            group.start_download_file(hf_xet.XetFileInfo(name, size), str(part))
        part.replace(path)


def _files(shard: bytes) -> Iterator[tuple[str, str, int]]:
    """(sha256, Xet hash, size) of every file that a shard describes."""
    at = _ROW
    while shard[at : at + 32] != _END:
        name = _text(shard[at : at + 32])
        flags, count = struct.unpack("<II", shard[at + 32 : at + 40])
        at += _ROW
        size = 0
        for _ in range(count):
            size += struct.unpack("<I", shard[at + 36 : at + 40])[0]
            at += _ROW
        if flags & _VERIFIED:
            at += _ROW * count
        if flags & _HAS_SHA:
            yield _text(shard[at : at + 32]), name, size
            at += _ROW


def _text(raw: bytes) -> str:
    """A hash as hexadecimal text: four little-endian words."""
    return "".join(f"{word:016x}" for word in struct.unpack("<4Q", raw))
