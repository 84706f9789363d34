"""Push a merged model: untouched files are copied on the server, only changed shards are sent.

From a folder, or from a patch alone: then one base shard after the other is fetched, changed in place,
sent and deleted, so the disk holds one shard at a time and never the whole checkpoint.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hubedit
from hubedit.checkpoint.belongs import belongs, left_out
from hubedit.checkpoint.delta import Change
from hubedit.checkpoint.header import read_header
from hubedit.checkpoint.merge import vanished
from hubedit.checkpoint.place import write_at
from hubedit.checkpoint.read import INDEX, SINGLE, Checkpoint
from hubedit.checkpoint.record import RECORD, Record, Touched
from hubedit.checkpoint.stack import Member, Stack, factors, member
from hubedit.errors import HubError
from hubedit.facts.dump import to_record
from hubedit.hub import contents
from hubedit.hub.account import create, patiently
from hubedit.hub.changes import Content, Copy, Sent, Tree, Upload, read_tree
from hubedit.hub.contents import Base
from hubedit.hub.layout import layout as layout_of
from hubedit.hub.push import Pushed, Target, find_base, put
from hubedit.hub.stale import model_stale
from hubedit.progress import Progress, Silent

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_OWN = (".gitattributes", "README.md", RECORD)


@dataclass(frozen=True, eq=False)
class Shards:
    """Where the base's files are. `tree`: of its commit; `work`: a folder for one file at a time."""

    api: HfApi
    base: Base
    tree: Tree
    work: Path

    def fetch(self, path: str) -> Path:
        """A file of the base, in the work folder. Raises HubError."""
        return Path(
            patiently(
                lambda: self.api.hf_hub_download(
                    self.base.repo, path, revision=self.base.commit, local_dir=self.work
                ),
                self.base.repo,
                self.base.commit,
                doing="download",
            )
        )

    def copy(self, path: str, target: Target) -> Copy:
        """The file as the server copies it; sent from here where it refuses."""

        def otherwise() -> Upload | Sent:
            file = self.fetch(path)
            try:
                return sent(self.api, target, path, file)
            finally:
                file.unlink()

        return Copy(self.base.repo, self.base.commit, path, self.tree[path], otherwise)


def push_merged(
    folder: Path,
    target: Target,
    *,
    base: str = "",
    with_facts: bool = True,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Pushed:
    """Merges a patch into its base on the way to the Hub. The whole checkpoint is never on the disk.

    Raises PatchError where the weights are not those the patch was made for, CheckpointError, HubError;
    then the repository is as it was.
    """
    progress, api = progress or Silent(), target.api
    progress.start("checking the patch")
    there = find_base(api, folder, base) if base else None
    made = contents.patch_contents(folder, target.repo, base=there, with_facts=with_facts)
    tree = read_tree(api, made.base.repo, made.base.commit)
    with tempfile.TemporaryDirectory(prefix="hubedit-") as work:
        shards = Shards(api, made.base, tree, Path(work))
        _check_plain(shards)
        layout = layout_of(api, made.base, shards.work)
        one = member(layout, made.patch, folder.resolve().name)
        touched = sorted({layout.entry(name).file.name for name in one.modules})
        progress.finish(f"{len(one.modules)} weights in {len(touched)} files")

        files: dict[str, Content] = {}
        weights = {*layout.headers, *(() if SINGLE in layout.headers else (INDEX,))}
        behind = []
        for path in tree:
            if path in touched or path in _OWN:
                continue
            if path in weights or belongs(path):
                files[path] = shards.copy(path, target)
            else:
                behind.append(path)
        behind = [*left_out(behind, files), *made.left_out]
        if dry_run:
            record = {"kind": "merged", "base": {"ref": made.base.repo, "commit": made.base.commit}}
            files |= _beside(target.repo, record, made, with_facts)
            plan = put(
                target,
                "model",
                files,
                lambda t: model_stale(files, t, touched),
                "",
                dry_run=True,
                progress=progress,
            )
            sizes = {**plan.uploaded, **{name: tree[name].size for name in touched}}
            return replace(plan, uploaded=sizes, left_out=tuple(behind))
        licence = _licence(shards)
        create(api, target.seen)
        tensors: dict[str, Touched] = {}
        for name in touched:
            found, content = _shard(shards, target, name, one, progress)
            tensors |= found
            files[name] = content
    done = Record(
        made.base.repo,
        made.base.commit,
        (one.entry(),),
        tensors,
        licence=licence,
        packages={"hubedit": hubedit.__version__},
    )
    files |= _beside(target.repo, done.to_json(), made, with_facts)
    count = f"{made.facts} edited fact{'' if made.facts == 1 else 's'}"
    message = target.where.message or f"{made.base.repo} with {count}"
    stale = partial(model_stale, files)
    pushed = put(target, "model", files, stale, message, dry_run=False, progress=progress)
    warning = vanished(done)
    notes = (*pushed.notes, *((warning,) if warning else ()))
    return replace(pushed, left_out=tuple(behind), notes=notes)


def sent(api: HfApi, target: Target, path: str, file: Path) -> Upload | Sent:
    """Sends a large file's content ahead of the commit, so that the file may go. Raises HubError."""
    from huggingface_hub import CommitOperationAdd

    size = file.stat().st_size
    add = CommitOperationAdd(path, file)
    patiently(
        lambda: api.preupload_lfs_files(
            target.repo, [add], revision=target.place.revision, create_pr=target.place.pr
        ),
        target.repo,
        doing="push to",
    )
    if add.path_or_fileobj != b"":  # the Hub takes it as a small file, with the commit
        return Upload(file.read_bytes())
    return Sent(add, size, add.upload_info.sha256.hex())


def _shard(
    shards: Shards, target: Target, name: str, one: Member, progress: Progress
) -> tuple[dict[str, Touched], Upload | Sent]:
    """Fetches a shard, adds the patch in place, sends it, deletes it."""
    progress.start(f"merging {name}")
    file = shards.fetch(name)
    try:
        header = read_header(file)
        checkpoint = Checkpoint(shards.work, {name: header}, header.tensors, {})
        here = replace(one, modules={t: m for t, m in one.modules.items() if t in header.tensors})
        touched = {
            tensor: replace(found, base_file=name)
            for tensor, found in Stack(checkpoint, None, ()).touch(here).items()
        }
        with file.open("r+b", buffering=0) as stream:
            for tensor, found in touched.items():
                entry = header.tensors[tensor]
                change = Change(entry, factors((here,), tensor), found.transposed)
                # a block is read before it is written, and blocks do not overlap
                real = change.write(entry.dtype, _writer(stream.fileno(), entry.start))
                touched[tensor] = replace(
                    found,
                    dtype=entry.dtype,
                    sha256=real.sha256,
                    norm=real.norm,
                    kept=real.kept,
                    error=real.error,
                )
        progress.finish(f"{len(touched)} weights")
        progress.start(f"sending {name}")
        content = sent(shards.api, target, name, file)
        progress.finish()
        return touched, content
    finally:
        file.unlink()


def _licence(shards: Shards) -> dict[str, Any]:
    """What the base's card says about its licence."""
    from hubedit.report.licence import licence_of

    if "README.md" not in shards.tree:
        return {}
    return licence_of(shards.fetch("README.md").parent)


def _check_plain(shards: Shards) -> None:
    """Raises HubError for a base that has patches already: its record and originals would be lost."""
    if RECORD not in shards.tree:
        return
    file = shards.fetch(RECORD)
    record = Record.read(file.parent)
    file.unlink()
    if record is not None:
        raise HubError(
            f"{shards.base.repo} has {len(record.patches)} merged "
            f"patch{'' if len(record.patches) == 1 else 'es'} already",
            "add the patch here, then push the folder: hubedit merge PATCH --model "
            f"{shards.base.repo} --out DIR; hubedit push DIR REPO",
        )


def _beside(
    repo: str, record: Mapping[str, Any], made: contents.Contents, with_facts: bool
) -> dict[str, Content]:
    """The merged model's card and record, and the patch under patches/1."""
    from hubedit.report.card import merged_card

    report = made.files.get(contents.REPORT)
    told = (
        json.loads(report.source) if isinstance(report, Upload) and isinstance(report.source, bytes) else {}
    )
    known = [to_record(fact) for fact in made.patch.facts] if with_facts else []
    card = merged_card(record, told, repo, with_facts=with_facts, facts=known)
    text = json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return {
        **{f"patches/1/{name}": content for name, content in made.files.items()},
        "README.md": Upload(card.encode()),
        RECORD: Upload(f"{text}\n".encode()),
    }


def _writer(handle: int, start: int) -> Any:
    at = start

    def write(data: memoryview) -> None:
        nonlocal at
        write_at(handle, data, at)
        at += len(data)

    return write
