"""Single tensors of a repository on the Hub, by range reads: the header of a file, then only their bytes."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hubedit.checkpoint.merge_record import Touched
from hubedit.errors import CheckpointError, HubEditError
from hubedit.progress import Progress
from hubedit.remote import WAITS, Trouble, client_errors, explain
from hubedit.weights.header import TensorEntry, header_bytes, nbytes, read_header

_MOST_HEADER = 100_000_000
_MB = 1_000_000


class Remote:
    """One commit of a repository. `scratch`: a folder for what is fetched; it is made when needed. `waits`:
    seconds before a dropped connection is tried again, once for each.

    The endpoint and the login are those of huggingface_hub (HF_ENDPOINT, HF_TOKEN, the saved login).
    """

    def __init__(
        self, repo: str, commit: str, scratch: Path, progress: Progress, waits: Sequence[float] = WAITS
    ) -> None:
        self._repo, self._commit, self._scratch, self._progress = repo, commit, scratch, progress
        self._waits = waits
        self._layouts: dict[str, tuple[int, dict[str, Any]]] = {}

    def fetch(self, name: str, touched: Touched) -> TensorEntry | None:
        """A tensor's bytes, in a file of its own; None where the repository's file lacks it.

        Raises CheckpointError when the Hub cannot be asked. The bytes are not verified here.
        """
        start, layout = self._layout(touched.base_file)
        place = layout.get(name)
        if not isinstance(place, dict):
            return None
        try:
            begin, end = place["data_offsets"]
            size, shape = int(end) - int(begin), touched.shape
            same = place["dtype"] == touched.base_dtype and tuple(place["shape"]) == shape
        except (TypeError, KeyError, ValueError):
            return None
        if not same or size != nbytes(touched.base_dtype, shape):
            return None
        self._scratch.mkdir(exist_ok=True)
        file = self._scratch / f"{len(list(self._scratch.iterdir()))}.safetensors"
        head = header_bytes({name: (touched.base_dtype, shape)}, {})
        self._progress.start(f"fetching {name}", size // _MB, "MB")
        done = 0
        with file.open("xb") as stream:
            stream.write(head)
            for piece in self._range(touched.base_file, start + int(begin), size):
                stream.write(piece)
                done += len(piece)
                self._progress.advance(done // _MB - (done - len(piece)) // _MB)
        self._progress.finish()
        return read_header(file).tensors[name]

    def _layout(self, file: str) -> tuple[int, dict[str, Any]]:
        """Where the tensors' bytes begin in a file, and its header."""
        if file not in self._layouts:
            length = struct.unpack("<Q", b"".join(self._range(file, 0, 8)))[0]
            if not 0 < length <= _MOST_HEADER:
                raise CheckpointError(f"{file} of {self._repo} is no safetensors file")
            try:
                data = json.loads(b"".join(self._range(file, 8, length)))
            except (ValueError, RecursionError) as error:
                raise CheckpointError(f"the header of {file} of {self._repo} is not JSON") from error
            self._layouts[file] = 8 + length, data if isinstance(data, dict) else {}
        return self._layouts[file]

    def _range(self, file: str, start: int, size: int) -> Iterator[bytes]:
        """`size` bytes of a file from `start` on, in pieces. Raises CheckpointError.

        Where the connection drops, the rest is asked for again, after a wait; bytes that came start the
        waits anew.
        """
        done, waits = 0, list(self._waits)
        while done < size:
            before = done
            reason: BaseException | None = None
            try:
                with self._open(file, start + done, size - done) as pieces:
                    for piece in pieces:
                        done += len(piece)
                        if done > size:
                            break
                        yield piece
                trouble = Trouble(f"the Hub sent {done:,} bytes of {file} instead of {size:,}", "", "network")
            except HubEditError:
                raise
            except client_errors() as error:
                trouble, reason = explain(error, self._repo, self._commit, doing="read"), error
            if done > before:
                waits = list(self._waits)
            if done > size or (done < size and not (trouble.passing and waits)):
                raise CheckpointError(trouble.message, trouble.hint) from reason
            if done < size:
                time.sleep(waits.pop(0))

    @contextmanager
    def _open(self, file: str, start: int, size: int) -> Iterator[Iterator[bytes]]:
        from huggingface_hub import constants, get_session, hf_hub_url, utils

        client: Any = utils  # what it offers is not declared
        url = hf_hub_url(self._repo, file, revision=self._commit)
        headers = {**client.build_hf_headers(), "Range": f"bytes={start}-{start + size - 1}"}
        headers["Accept-Encoding"] = "identity"  # a compressed answer would have other bytes
        with get_session().stream("GET", url, headers=headers) as answer:
            client.hf_raise_for_status(answer)
            if answer.status_code != 206:
                raise CheckpointError(f"{constants.ENDPOINT} does not serve parts of files")
            yield answer.iter_bytes()  # as they come: what came before a drop is kept
