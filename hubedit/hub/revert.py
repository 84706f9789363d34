"""Take patches out of a merged model's repository, as a new commit."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from hubedit.checkpoint.merge import repositories
from hubedit.checkpoint.merge_record import PATCHES, RECORD, Record
from hubedit.checkpoint.origin import Origin
from hubedit.checkpoint.read import INDEX
from hubedit.checkpoint.revert import check_choice, choose, remaining
from hubedit.checkpoint.stack import Member, Stack
from hubedit.errors import HubError
from hubedit.facts.dump import to_record
from hubedit.hub.account import client, writer
from hubedit.hub.changes import Content, Tree, Upload, read_tree, resolve
from hubedit.hub.contents import CARD, Base, kind_of
from hubedit.hub.layout import layout
from hubedit.hub.merged import planned, send
from hubedit.hub.push import Pushed, Target, Where, check_target, put
from hubedit.hub.shards import Shards, rewrite
from hubedit.hub.stacked import record_text, stack_at
from hubedit.hub.stale import model_stale
from hubedit.progress import Progress, Silent

_KEPT = (".gitattributes",)


def check_merged(where: Where) -> None:
    """Raises HubError for a repository in which no patch can be reverted."""
    api = client()
    repo = writer(api, where.repo, pr=where.pr)
    tree = read_tree(api, repo, resolve(api, repo, where.revision or "main"))
    if kind_of(tree) == "patch":
        raise HubError(
            f"{repo} holds a patch, and no model that it was merged into",
            "give the merged model; a patch alone is undone by not loading it",
        )
    if RECORD not in tree:
        raise HubError(f"{repo} holds no merged patches", "nothing to revert")


def revert_repo(
    where: Where,
    *,
    last: bool = False,
    patch: str | None = None,
    everything: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Pushed:
    """Takes patches out of a merged model at the Hub, as a new commit; the history keeps the merged state.

    Without any patch left, the server copies all files of the base's pinned commit back. Else it copies
    the shards of the base that no other patch touches, and the sums of the others are computed from the
    base's bytes, one shard at a time, and sent. `last`, `patch`, `everything`: as for
    `hubedit.checkpoint.revert.prepare`.

    Raises HubError for a repository that hubedit did not merge, or whose base was a local folder,
    ConfigError where it is not clear which patch is meant; then it is as it was.
    """
    progress = progress or Silent()
    check_choice(last, patch, everything)
    check_merged(where)
    target = check_target(where, "model")
    api, repo = target.api, target.repo
    head = resolve(api, repo, target.place.revision)
    with tempfile.TemporaryDirectory(prefix="hubedit-") as work:
        progress.start("reading the stack")
        shards = Shards(api, Base(repo, head), read_tree(api, repo, head), Path(work))
        stack = stack_at(shards) if RECORD in shards.tree else None
        if stack is None or stack.record is None:
            raise HubError(f"{repo} holds no merged patches", "nothing to revert")
        record = stack.record
        if not record.commit:
            raise HubError(
                f"the base of {repo} was the local folder {record.base}",
                f"revert it here, then push it: hubedit pull {repo} --out DIR; hubedit revert DIR; "
                f"hubedit push DIR {repo}",
            )
        removed = choose(stack, last, patch, everything)
        left = tuple(each for each in stack.members if each not in removed)
        progress.finish(f"{len(stack.members)} patch{'' if len(stack.members) == 1 else 'es'}")
        base = Base(record.base, record.commit)
        origin = Shards(api, base, read_tree(api, base.repo, base.commit), Path(work))
        if left:
            return _partly(target, shards, origin, stack, removed, left, dry_run, progress)
        files = {path: origin.copy(path, target) for path in origin.tree if path not in _KEPT}
        count = len(removed)
        message = where.message or f"Revert {count} patch{'' if count == 1 else 'es'}: {base.repo} again"
        stale = partial(_stale, files)
        return put(target, "model", files, stale, message, dry_run=dry_run, progress=progress)


def _stale(files: Mapping[str, Content], found: Tree) -> list[str]:
    own = [path for path in (RECORD, CARD) if path in found and path not in files]
    return [*model_stale(files, found), *own]


def _partly(
    target: Target,
    shards: Shards,
    origin: Shards,
    stack: Stack,
    removed: tuple[Member, ...],
    left: tuple[Member, ...],
    dry_run: bool,
    progress: Progress,
) -> Pushed:
    """The stack without the patches `removed`. Every file that neither has to do with stays."""
    assert stack.record is not None
    record = remaining(stack.record, left)
    assert record is not None
    changed = {name for each in removed for name in each.modules}
    touched = sorted({stack.checkpoint.entry(name).file.name for name in changed})
    back = _back(origin, stack, record, touched)
    files: dict[str, Content] = {name: origin.copy(name, target) for name in back}
    anew = [name for name in touched if name not in back]
    weights = {*stack.checkpoint.headers, INDEX}
    for path in shards.tree:
        # reports and plots at the root speak of the old stack
        if path in weights or not (model_stale((), {path: shards.tree[path]}) or path in (RECORD, CARD)):
            files.setdefault(path, shards.copy(path, target))
    for name in anew:
        del files[name]
    files |= _patches(target, shards, stack, left)
    if dry_run:
        files |= _records(target.repo, record.to_json(), left)
        return planned(target, files, shards, anew, progress)
    tensors = dict(record.tensors)
    bytes_of = Origin(repos=repositories(stack.record))
    for name in anew:
        file, found = rewrite(shards, name, stack, left, changed, bytes_of, progress)
        tensors |= found
        files[name] = send(shards, target, name, file, progress)
    files |= _records(target.repo, replace(record, tensors=tensors).to_json(), left)
    gone = ", ".join(each.name or each.id for each in removed)
    message = target.where.message or f"Revert {gone}"
    stale = partial(model_stale, files)
    return put(target, "model", files, stale, message, dry_run=False, progress=progress)


def _back(origin: Shards, stack: Stack, record: Record, touched: list[str]) -> set[str]:
    """Shards that are the base's own again: no patch that stays changes any of their tensors, and the base
    has the very same tensors at the same places of a file of that name."""
    if record.converted:
        return set()
    free = set(touched)
    for name in record.tensors:
        free.discard(stack.checkpoint.entry(name).file.name)
    if not free:
        return set()
    theirs: Any = layout(origin.api, origin.base, origin.work).headers
    return {
        name
        for name in free
        if name in origin.tree
        and name in theirs
        and theirs[name].tensors == stack.checkpoint.headers[name].tensors
        and theirs[name].metadata == stack.checkpoint.headers[name].metadata
    }


def _patches(target: Target, shards: Shards, stack: Stack, left: tuple[Member, ...]) -> dict[str, Content]:
    """The folders of the patches that stay, numbered anew."""
    files: dict[str, Content] = {}
    for number, each in enumerate(left, 1):
        old = f"{PATCHES}/{stack.members.index(each) + 1}/"
        for path in shards.tree:
            if path.startswith(old):
                to = f"{PATCHES}/{number}/{path.removeprefix(old)}"
                files[to] = shards.copy(path, target, to)
    return files


def _records(repo: str, record: Mapping[str, Any], left: tuple[Member, ...]) -> dict[str, Content]:
    """The record and the card."""
    from hubedit.report.card import merged_card

    facts = [to_record(fact) for each in left for fact in each.patch.facts]
    card = merged_card(record, {}, repo, facts=facts)
    return {CARD: Upload(card.encode()), RECORD: Upload(record_text(record))}
