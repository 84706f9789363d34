"""One file of a checkpoint at the Hub at a time: fetched, changed in place, sent, deleted."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hubedit.checkpoint.delta import Change
from hubedit.checkpoint.merge_record import Record, Touched
from hubedit.checkpoint.origin import Origin
from hubedit.checkpoint.place import write_at
from hubedit.checkpoint.read import Checkpoint
from hubedit.checkpoint.stack import Member, Stack, factors
from hubedit.errors import HubError
from hubedit.hub.account import with_retries
from hubedit.hub.changes import Copy, Sent, Tree, Upload
from hubedit.hub.contents import Base
from hubedit.hub.push import Target
from hubedit.progress import Progress
from hubedit.report.markup import plural
from hubedit.weights.blocks import tensor_digest
from hubedit.weights.header import TensorEntry, read_header

if TYPE_CHECKING:
    from huggingface_hub import HfApi


@dataclass(frozen=True, eq=False)
class Shards:
    """Where a checkpoint's files are. `base`: its repository and commit; `tree`: of that commit; `work`: a
    folder for one file at a time."""

    api: HfApi
    base: Base
    tree: Tree
    work: Path

    def fetch(self, path: str) -> Path:
        """A file of the checkpoint, in the work folder. Raises HubError."""
        return Path(
            with_retries(
                lambda: self.api.hf_hub_download(
                    self.base.repo, path, revision=self.base.commit, local_dir=self.work
                ),
                self.base.repo,
                self.base.commit,
                doing="download",
            )
        )

    def copy(self, path: str, target: Target, to: str = "") -> Copy:
        """The file as the server copies it, to `to` or the same path; sent from here where it refuses."""

        def otherwise() -> Upload | Sent:
            file = self.fetch(path)
            try:
                return sent(self.api, target, to or path, file)
            finally:
                file.unlink()

        return Copy(self.base.repo, self.base.commit, path, self.tree[path], otherwise)


def sent(api: HfApi, target: Target, path: str, file: Path) -> Upload | Sent:
    """Sends a large file's content ahead of the commit, so that the file may go. Raises HubError."""
    from huggingface_hub import CommitOperationAdd

    size = file.stat().st_size
    add = CommitOperationAdd(path, file)
    with_retries(
        lambda: api.preupload_lfs_files(
            target.repo, [add], revision=target.place.revision, create_pr=target.place.pr
        ),
        target.repo,
        doing="push to",
    )
    if add.path_or_fileobj != b"":  # the Hub takes it as a small file, with the commit
        return Upload(file.read_bytes())
    return Sent(add, size, add.upload_info.sha256.hex())


def rewrite(
    shards: Shards,
    name: str,
    stack: Stack,
    members: Sequence[Member],
    changed: Collection[str],
    origin: Origin,
    progress: Progress,
) -> tuple[Path, dict[str, Touched]]:
    """A shard with the sums of `members` in place of those of `stack`; and what became of its tensors.

    `stack`: the patches that the files hold now; `members`: those that they shall hold; `changed`: the
    tensors, of any shard, whose sum is another one then; `origin`: where the base's bytes of tensors come
    from that the files hold no longer. The caller deletes the file. Raises HubError for a file that is not
    what hubedit wrote, CheckpointError, PatchError where a patch was made for other weights.
    """
    progress.start(f"merging {name}")
    file = shards.fetch(name)
    header = read_header(file)
    checkpoint = Checkpoint(shards.work, {name: header}, header.tensors, {})
    _check_current(stack.record, shards, name, header.tensors)
    old = stack.record.tensors if stack.record else {}
    touched = {tensor: old[tensor] for tensor in changed if tensor in old and tensor in header.tensors}
    scratch = shards.work / ".base"
    base = origin.find(touched, scratch, progress) if touched else {}
    for each in members:
        if any(each.id == older.id for older in stack.members):
            continue
        here = replace(each, modules={t: m for t, m in each.modules.items() if t in header.tensors})
        fresh = Stack(checkpoint, stack.record, stack.members).touch(here)
        touched |= {t: replace(found, base_file=name) for t, found in fresh.items() if t not in touched}
    found: dict[str, Touched] = {}
    with file.open("r+b", buffering=0) as stream:
        for tensor, before in touched.items():
            entry = header.tensors[tensor]
            change = Change(base.get(tensor, entry), factors(members, tensor), before.transposed)
            # a block is read before it is written, and blocks do not overlap
            real = change.write(entry.dtype, _writer(stream.fileno(), entry.start))
            if change.factors:
                found[tensor] = replace(
                    before,
                    dtype=entry.dtype,
                    sha256=real.sha256,
                    norm=real.norm,
                    kept=real.kept,
                    error=real.error,
                )
    shutil.rmtree(scratch, ignore_errors=True)
    progress.finish(plural(len(touched), "weight"))
    return file, found


def _check_current(
    record: Record | None, shards: Shards, name: str, inside: Mapping[str, TensorEntry]
) -> None:
    """Raises HubError where a tensor is not what the merge wrote."""
    for tensor, touched in (record.tensors if record else {}).items():
        entry = inside.get(tensor)
        if entry is None:
            continue
        same = entry.dtype == touched.dtype and entry.shape == touched.shape
        if not same or tensor_digest(entry) != touched.sha256:
            raise HubError(
                f"{tensor} in {name} of {shards.base.repo} was changed after the merge",
                "merge again from the base; nothing was changed now",
            )


def _writer(handle: int, start: int) -> Callable[[memoryview], None]:
    at = start

    def write(data: memoryview) -> None:
        nonlocal at
        write_at(handle, data, at)
        at += len(data)

    return write
