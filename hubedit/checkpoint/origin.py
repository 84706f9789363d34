"""Where the base's exact bytes of a tensor come from, each verified by its sha256.

In this order: the originals kept beside the merge, a folder that was given, the Hub cache's snapshot of the
recorded commit, and last range reads of only those tensors from the Hub.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from hubedit.checkpoint.merge_record import ORIGINALS, Touched
from hubedit.checkpoint.read import Checkpoint
from hubedit.errors import CheckpointError, HubEditError
from hubedit.progress import Progress
from hubedit.weights.blocks import tensor_digest
from hubedit.weights.header import TensorEntry, read_header

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

    def file(self, name: str) -> Path | None:
        """A small file of the base, such as its card, where it lies on this machine."""
        places = [self.kept / ORIGINALS / name] if self.kept is not None else []
        places += [self.given / name] if self.given is not None else []
        cached = (_cached_file(repo, commit, name) for repo, commit in self.repos[:1])
        return next((file for file in (*places, *cached) if file is not None and file.is_file()), None)


def matching(given: Path, ref: str, tensors: Mapping[str, Touched]) -> dict[str, TensorEntry]:
    """Where a given model has the base's bytes of the tensors; `ref`: how the user calls it.

    Raises CheckpointError where it is another model.
    """
    found = Checkpoint.open(given).tensors
    for name, touched in tensors.items():
        if name not in found or not _same(found[name], touched):
            what = "has other bytes than the record says" if name in found else "is not there"
            raise CheckpointError(
                f"{ref} is not the base: {name} {what}",
                "give the model that the patches were merged into, or leave out --base; nothing was changed",
            )
    return {name: found[name] for name in tensors}


def _cached(repo: str, commit: str, name: str, touched: Touched) -> TensorEntry | None:
    file = _cached_file(repo, commit, touched.base_file)
    return None if file is None else read_header(file).tensors.get(name)


def _cached_file(repo: str, commit: str, name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        file = try_to_load_from_cache(repo, name, revision=commit)
    except HFValidationError:
        return None
    return Path(file) if isinstance(file, str) else None


def _same(entry: TensorEntry, touched: Touched) -> bool:
    return (
        entry.dtype == touched.base_dtype
        and entry.shape == touched.shape
        and tensor_digest(entry) == touched.base_sha256
    )
