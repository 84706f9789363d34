"""Where the base's exact bytes of a tensor come from, each verified by its sha256.

In this order: the originals kept beside the merge, a folder that was given, the Hub cache's snapshot of the
recorded commit, and last range reads of only those tensors from the Hub.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from hubedit.checkpoint.header import TensorEntry, read_header
from hubedit.checkpoint.read import Checkpoint, tensor_digest
from hubedit.checkpoint.record import ORIGINALS, Touched
from hubedit.errors import CheckpointError, HubEditError
from hubedit.progress import Progress

KEPT = "model.safetensors"
_Look = Callable[[str, Touched], TensorEntry | None]


@dataclass(frozen=True)
class Origin:
    """`known`: tensors whose bytes were verified already; `kept`: a merged model's folder with originals;
    `given`: another folder with the base; `repos`: (repository, commit) pairs on the Hub.
    """

    known: Mapping[str, TensorEntry] = field(default_factory=dict)
    kept: Path | None = None
    given: Path | None = None
    repos: Sequence[tuple[str, str]] = ()

    def find(
        self, tensors: Mapping[str, Touched], scratch: Path, progress: Progress
    ) -> dict[str, TensorEntry]:
        """Where each tensor's bytes lie now; what the Hub sends is put into `scratch`.

        Raises CheckpointError when the bytes of any cannot be had.
        """
        found = {name: self.known[name] for name in tensors if name in self.known}
        said: list[str] = []
        for label, look in self._places(scratch, progress):
            missing = sorted(set(tensors) - set(found))
            if not missing:
                break
            try:
                for name in missing:
                    entry = look(name, tensors[name])
                    if entry is None:
                        said.append(f"{label}: not there")
                        break
                    if not _same(entry, tensors[name]):
                        said.append(f"{label}: {name} has other bytes")
                        continue
                    found[name] = entry
            except HubEditError as error:
                said.append(f"{label}: {error.message}")
        if left := sorted(set(tensors) - set(found)):
            tried = "; ".join(dict.fromkeys(said)) or "no originals were kept, and the base is not on the Hub"
            raise CheckpointError(
                f"the base's bytes of {left[0]} cannot be had ({tried})",
                "give the base model with --base; nothing was changed",
            )
        return found

    def _places(self, scratch: Path, progress: Progress) -> Iterator[tuple[str, _Look]]:
        if self.kept is not None and (self.kept / ORIGINALS / KEPT).exists():
            kept = read_header(self.kept / ORIGINALS / KEPT).tensors
            yield f"{ORIGINALS}/", lambda name, _: kept.get(name)
        if self.given is not None:
            base = Checkpoint.open(self.given)
            yield str(self.given), lambda name, _: base.tensors.get(name)
        for repo, commit in self.repos:
            yield f"cache of {repo}", partial(_cached, repo, commit)
        for repo, commit in self.repos:
            from hubedit.checkpoint.remote import Remote

            remote = Remote(repo, commit, scratch, progress)
            yield f"{repo} on the Hub", remote.fetch


def _cached(repo: str, commit: str, name: str, touched: Touched) -> TensorEntry | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        file = try_to_load_from_cache(repo, touched.base_file, revision=commit)
    except HFValidationError:
        return None
    if not isinstance(file, str):
        return None
    return read_header(Path(file)).tensors.get(name)


def _same(entry: TensorEntry, touched: Touched) -> bool:
    return (
        entry.dtype == touched.base_dtype
        and entry.shape == touched.shape
        and tensor_digest(entry) == touched.base_sha256
    )
