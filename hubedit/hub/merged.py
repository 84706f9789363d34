"""Push a merged model: untouched files are copied on the server, only changed shards are sent.

From a folder, or from a patch alone: then one base shard after the other is fetched, changed in place,
sent and deleted, so the disk holds one shard at a time and never the whole checkpoint.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hubedit
from hubedit.checkpoint.belongs import belongs, left_out
from hubedit.checkpoint.merge import repositories
from hubedit.checkpoint.origin import Origin
from hubedit.checkpoint.read import INDEX, SINGLE
from hubedit.checkpoint.record import PATCHES, RECORD, Record, vanished
from hubedit.checkpoint.settle import settle
from hubedit.checkpoint.stack import Member, Stack, member
from hubedit.checkpoint.tokenizer import TOKENIZER, readable
from hubedit.errors import HubError
from hubedit.hub import contents
from hubedit.hub.account import created
from hubedit.hub.changes import Content, Upload, read_tree, resolve
from hubedit.hub.contents import Base
from hubedit.hub.push import Pushed, Target, find_base, put
from hubedit.hub.shards import Shards, rewrite, sent
from hubedit.hub.stacked import model_files, older, stack_at
from hubedit.hub.stale import model_stale
from hubedit.patch.compose import ConflictError
from hubedit.patch.doubts import doubts
from hubedit.progress import Progress, Silent
from hubedit.report.markup import plural

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_OWN = (".gitattributes", "README.md", RECORD)


def push_merged(
    folders: Sequence[Path],
    target: Target,
    *,
    names: Sequence[str] = (),
    base: str = "",
    with_facts: bool = True,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Pushed:
    """Merges patches, in this order, into their base on the way to the Hub. The whole checkpoint is never on
    the disk.

    A base that is a merged model of the Hub keeps its patches; the new ones come on top. `names`: what the
    user calls the patches. Raises PatchError where the weights are not those a patch was made for or where
    facts contradict each other, CheckpointError, HubError; then the repository is as it was.
    """
    progress, api = progress or Silent(), target.api
    progress.start("checking the patches")
    there = _start(api, folders[0], base)
    with tempfile.TemporaryDirectory(prefix="hubedit-") as work:
        shards = Shards(api, there, read_tree(api, there.repo, there.commit), Path(work))
        _check_alone(shards)
        stack = stack_at(shards)
        _check_takes_more(shards, stack)
        made = _patches(shards, stack, folders, target.repo, base, with_facts)
        layout = stack.checkpoint
        called = names or [folder.resolve().name for folder in folders]
        new = [member(layout, each.patch, name) for each, name in zip(made, called, strict=True)]
        if there.repo == target.repo:  # pushed once more: what is there stays
            known = {each.id for each in stack.members}
            made = [each for each, one in zip(made, new, strict=True) if one.id not in known]
            new = [each for each in new if each.id not in known]
        members = (*stack.members, *new)
        _check_once(members)
        notices = _settled(members, len(stack.members))
        changed = {name for each in new for name in each.modules}
        touched = sorted({layout.entry(name).file.name for name in changed})
        progress.finish(f"{plural(len(changed), 'weight')} in {plural(len(touched), 'file')}")

        files, behind = _carried(shards, target, stack, touched)
        everything = [*older(shards, stack, target.repo, with_facts), *made]
        behind = [*behind, *(name for each in made for name in each.left_out)]
        if dry_run:
            record = {"kind": "merged", "base": {"ref": there.repo, "commit": there.commit}}
            files |= model_files(target.repo, record, everything, with_facts)
            return replace(planned(target, files, shards, touched, progress), left_out=tuple(behind))
        old = stack.record
        licence = old.licence if old else _licence(shards)
        replaced = _replaced(target, members)
        origin = Origin(repos=repositories(old) if old else ())
        tensors = dict(old.tensors) if old else {}
        with created(api, target.seen) as seen:
            target = replace(target, seen=seen)
            for name in touched:
                file, found = rewrite(shards, name, stack, members, changed, origin, progress)
                tensors |= found
                files[name] = send(shards, target, name, file, progress)
            done = Record(
                old.base if old else there.repo,
                old.commit if old else there.commit,
                # by their numbers and ids where names may tell the facts
                tuple(each.entry() if with_facts else replace(each.entry(), name="") for each in members),
                tensors,
                licence=licence,
                packages={"hubedit": hubedit.__version__},
            )
            files |= model_files(target.repo, done.to_json(), everything, with_facts)
            facts = sum(each.facts for each in everything)
            count = plural(facts, "edited fact")
            message = target.where.message or f"{done.base} with {count}"
            stale = partial(model_stale, files)
            pushed = put(target, "model", files, stale, message, dry_run=False, progress=progress)
    said = (f"{each.name or each.id}: {doubt}" for each in new for doubt in doubts(each.patch))
    notes = (*pushed.notes, *replaced, *said, *notices, vanished(done))
    return replace(pushed, left_out=tuple(behind), notes=tuple(note for note in notes if note))


def planned(
    target: Target, files: Mapping[str, Content], shards: Shards, touched: Sequence[str], progress: Progress
) -> Pushed:
    """What a push would do that writes the shards `touched` anew."""
    stale = partial(model_stale, files, more=touched)
    plan = put(target, "model", files, stale, "", dry_run=True, progress=progress)
    return replace(plan, uploaded={**plan.uploaded, **{name: shards.tree[name].size for name in touched}})


def send(shards: Shards, target: Target, name: str, file: Path, progress: Progress) -> Content:
    """Sends a shard ahead of the commit and deletes it here. Raises HubError."""
    progress.start(f"sending {name}")
    try:
        return sent(shards.api, target, name, file)
    finally:
        file.unlink()
        progress.finish()


def _start(api: HfApi, folder: Path, base: str) -> Base:
    """The repository that the first patch goes into, pinned. Raises HubError."""
    from hubedit.patch import Patch

    if not base:
        return contents.base_of(Patch.load(folder), folder, None)
    repo, _, revision = base.partition("@")
    return Base(repo, resolve(api, repo, revision or "main"))


def _patches(
    shards: Shards, stack: Stack, folders: Sequence[Path], repo: str, base: str, with_facts: bool
) -> list[contents.Contents]:
    """The new patches' files. Raises HubError for one that names another base."""
    made: list[contents.Contents] = []
    fitting = [shards.base]
    if stack.record is not None:  # whether the weights are the patch's own is seen from their hashes
        fitting.append(Base(stack.record.base, stack.record.commit))
    for folder in folders:
        there = None
        if base and stack.record is None:
            there = find_base(shards.api, folder, f"{shards.base.repo}@{shards.base.commit}")
        elif base and not contents.pinned(folder):
            there = fitting[-1]
        each = contents.patch_contents(folder, repo, base=there, with_facts=with_facts)
        if each.base not in fitting and not base:
            raise HubError(
                f"{folder} was made for {each.base.repo}@{each.base.commit[:8]}, "
                f"not for {shards.base.repo}@{shards.base.commit[:8]}",
                "if the weights are the same, say where they are: --base OWNER/NAME[@REVISION]",
            )
        made.append(each)
    return made


def _check_alone(shards: Shards) -> None:
    """Raises HubError for a base that a merge of its folder would refuse too."""
    if contents.CONFIG in shards.tree:
        raise HubError(
            f"{shards.base.repo} also holds a LoRA adapter, which loaders would apply as well",
            "name a base that is the model alone: --base OWNER/NAME[@REVISION]",
        )


def _settled(members: Sequence[Member], old: int) -> tuple[str, ...]:
    """What is worth a note. Raises ConflictError for a fact that two patches edit."""
    try:
        return settle(members, old, "stop").notices
    except ConflictError as error:
        hint = "make one patch of them first: hubedit compose P1 P2 --on-conflict last --out P"
        raise ConflictError(error.message, hint, error.problems) from error


def _check_once(members: Sequence[Member]) -> None:
    for number, each in enumerate(members):
        if any(each.id == older.id for older in members[:number]):
            raise HubError(f"patch {each.name or each.id} is in the stack already", "name every patch once")


def _check_takes_more(shards: Shards, stack: Stack) -> None:
    """Raises HubError for a merged base from whose record the base's bytes cannot be had."""
    record = stack.record
    if record is None:
        return
    if record.converted:
        raise HubError(
            f"{shards.base.repo} was merged with --dtype {record.converted}, so it takes no more patches",
            "merge all patches into the base at once",
        )
    if not record.commit:
        raise HubError(
            f"the base of {shards.base.repo} was the local folder {record.base}",
            "merge here, then push the folder: hubedit merge PATCH --model DIR --out NEW; "
            "hubedit push NEW REPO",
        )


def _carried(
    shards: Shards, target: Target, stack: Stack, touched: Sequence[str]
) -> tuple[dict[str, Content], list[str]]:
    """Files of the base that the server copies, and what stays behind."""
    layout = stack.checkpoint
    weights = {*layout.headers, *(() if SINGLE in layout.headers else (INDEX,))}
    files: dict[str, Content] = {}
    behind = []
    for path in shards.tree:
        if path in touched or path in _OWN or (stack.record and path.startswith(f"{PATCHES}/")):
            continue
        if path in weights or belongs(path):
            files[path] = shards.copy(path, target)
            if path == TOKENIZER and (new := readable(shards.fetch(path).read_bytes())) is not None:
                files[path] = Upload(new)
        else:
            behind.append(path)
    return files, left_out(behind, files)


def _replaced(target: Target, members: Sequence[Member]) -> list[str]:
    """What the repository holds now and will not hold any more."""
    if not target.seen.exists:
        return []
    head = resolve(target.api, target.repo, target.place.revision)
    tree = read_tree(target.api, target.repo, head)
    if RECORD not in tree:
        return []
    with tempfile.TemporaryDirectory(prefix="hubedit-") as work:
        Shards(target.api, Base(target.repo, head), tree, Path(work)).fetch(RECORD)
        record = Record.read(Path(work))
    kept = {each.id for each in members}
    gone = [each.name or each.id for each in record.patches if each.id not in kept] if record else []
    if not gone:
        return []
    return [
        f"{target.repo} held {', '.join(gone)} until now, and this push replaces it; to add to it: "
        f"--base {target.repo}"
    ]


def _licence(shards: Shards) -> dict[str, Any]:
    """What the base's card says about its licence."""
    from hubedit.report.licence import licence_of

    if "README.md" not in shards.tree:
        return {}
    return licence_of(shards.fetch("README.md").parent)
