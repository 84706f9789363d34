"""Push the folder of a merged model: what equals the base's files is copied on the server."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hubedit.checkpoint.belongs import belongs, left_out
from hubedit.checkpoint.merge_record import ORIGINALS, PATCHES, RECORD, Record
from hubedit.checkpoint.origin import KEPT
from hubedit.checkpoint.read import INDEX, SINGLE, Checkpoint
from hubedit.checkpoint.remote import Remote
from hubedit.checkpoint.tokenizer import TOKENIZER
from hubedit.errors import HubError
from hubedit.facts.dump import to_record
from hubedit.hub.changes import Content, Copy, Tree, Upload, read_tree, resolve
from hubedit.hub.contents import CARD, CONFIG, FACTS, KNOWN, REPORT, WITH_FACTS, Base, json_upload
from hubedit.hub.layout import layout
from hubedit.hub.private import check_silent, nameless, numbers_only, without_paths
from hubedit.hub.push import Pushed, Target, put
from hubedit.hub.stale import model_stale
from hubedit.progress import Progress, Silent
from hubedit.report.markup import plural
from hubedit.weights.blocks import tensor_digest

if TYPE_CHECKING:
    from huggingface_hub import HfApi

# what hubedit writes into a merged model besides the model
_OURS = re.compile(
    rf"{re.escape(RECORD)}|report\.(json|html)|plots/[\w-]+\.png|\.eval_results/[\w-]+\.ya?ml"
    rf"|{ORIGINALS}/({re.escape(KEPT)}|{re.escape(CARD)}|{re.escape(TOKENIZER)})"
)
_PATCH = re.compile(rf"{PATCHES}/\d+/(.+)")


def push_model(
    folder: Path,
    target: Target,
    *,
    base: str = "",
    with_facts: bool = True,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Pushed:
    """Pushes a model that hubedit merged. The folder is only read.

    `base`: `repo[@revision]` of the base, where the merge was made from a local folder. Raises
    CheckpointError for a damaged record, HubError; then the repository is as it was.
    """
    progress, api = progress or Silent(), target.api
    record = Record.read(folder)
    if record is None:
        raise HubError(f"{folder} is no model that hubedit merged", "merge a patch first: hubedit merge")
    there = Base(record.base, record.commit) if record.commit else None
    if base:
        repo, _, revision = base.partition("@")
        there = Base(repo, resolve(api, repo, revision or "main"))
    tree: Tree = read_tree(api, there.repo, there.commit) if there else {}
    if base and there is not None:
        _check_base(api, folder, record, there, tree, progress)
    progress.start("comparing with the base")
    headers = Checkpoint.open(folder).headers
    weights = {*headers, *(() if SINGLE in headers else (INDEX,))}
    files: dict[str, Content] = {}
    behind: list[str] = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if there and name.startswith(f"{ORIGINALS}/"):
            continue  # the base is at the Hub
        if name in weights or _ours(name) or belongs(name):
            files[name] = _content(path, name, tree, there)
        else:
            behind.append(name)
    left = left_out(behind, files)
    files |= _texts(folder, target.repo, record, there, files, with_facts)
    if not with_facts:
        files = {name: c for name, c in files.items() if not name.endswith((FACTS, *WITH_FACTS))}
    progress.finish(f"{len(files)} files")
    count = sum(entry.facts for entry in record.patches)
    name = there.repo if there else record.base
    message = target.where.message or f"{name} with {plural(count, 'edited fact')}"
    done = put(
        target, "model", files, lambda t: model_stale(files, t), message, dry_run=dry_run, progress=progress
    )
    return replace(done, left_out=tuple(left))


def _ours(name: str) -> bool:
    inside = _PATCH.fullmatch(name)
    return bool(KNOWN.fullmatch(inside[1]) if inside else _OURS.fullmatch(name))


def _check_base(api: HfApi, folder: Path, record: Record, base: Base, tree: Tree, progress: Progress) -> None:
    """Raises HubError unless the repository has the weights that the patches were merged into.

    Names, shapes and dtypes must agree, and the changed tensors' bytes, which are read from the Hub. Files
    without changes must be the same, unless the merge put the tensors into other files.
    """
    wrong = HubError(
        f"{base.repo} is not the base that {folder} was merged from: its weights differ",
        "push the base model as it is, or give the right --base",
    )
    touched = {tensor.base_file for tensor in record.tensors.values()}
    ours, theirs = Checkpoint.open(folder), layout(api, base, folder)
    if _outline(ours, record) != _outline(theirs, record):
        raise wrong
    files, there = (
        {name: set(header.tensors) for name, header in each.headers.items()} for each in (ours, theirs)
    )
    if files == there and not record.converted:
        for name in sorted(set(files) - touched):
            if name not in tree or not Upload(folder / name).same(tree[name]):
                raise wrong
    with tempfile.TemporaryDirectory(prefix="hubedit-") as work:
        remote = Remote(base.repo, base.commit, Path(work), progress)
        for name, tensor in record.tensors.items():
            entry = remote.fetch(name, tensor) if tensor.base_file in tree else None
            if entry is None or tensor_digest(entry) != tensor.base_sha256:
                raise wrong
            entry.file.unlink()


def _outline(checkpoint: Checkpoint, record: Record) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and dtype of every tensor, by name; the dtypes count where the merge kept them."""
    return {
        name: (entry.shape, "" if record.converted else entry.dtype)
        for name, entry in checkpoint.tensors.items()
    }


def _content(path: Path, name: str, tree: Tree, base: Base | None) -> Content:
    """Copied on the server where the base has the very same large file."""
    own, there = Upload(path), tree.get(name)
    if base is not None and there is not None and there.sha256 and own.same(there):
        return Copy(base.repo, base.commit, name, there, lambda: own)
    return own


def _texts(
    folder: Path, repo: str, record: Record, base: Base | None, files: Mapping[str, Content], with_facts: bool
) -> dict[str, Content]:
    """The record, the cards and the reports, without local paths and, if asked for, without facts."""
    from hubedit.patch import Patch
    from hubedit.patch.adapter import read_json
    from hubedit.report.card import merged_card, patch_card

    data = without_paths(record.to_json())
    if base is not None:
        data["base"] |= {"ref": base.repo, "commit": base.commit}
        data["originals"] = False
    if not with_facts:
        data["lineage"] = [{**each, "name": ""} for each in data["lineage"]]
    made: dict[str, Content] = {RECORD: json_upload(data)}
    facts = [
        f for n in range(1, len(record.patches) + 1) for f in Patch.load(folder / PATCHES / str(n)).facts
    ]
    for name in files:
        path = folder / name
        if name.endswith(CONFIG) and name.startswith(f"{PATCHES}/"):
            config = read_json(path)
            changed = {
                "base_model_name_or_path": data["base"]["ref"],
                "revision": data["base"]["commit"] or None,
            }
            local = not config.get("revision")
            made[name] = json_upload(config | changed if local else config)
        elif name.startswith(f"{PATCHES}/") and name.endswith(RECORD):
            one = without_paths(read_json(path))
            made[name] = json_upload(one if with_facts else nameless(one))
        elif name.endswith(REPORT):
            report = without_paths(read_json(path))
            made[name] = json_upload(report if with_facts else numbers_only(report))
        elif name.endswith(CARD) and name.startswith(f"{PATCHES}/") and not with_facts:
            one = nameless(without_paths(read_json(path.with_name(RECORD))))
            made[name] = Upload(patch_card(one, with_facts=False, name=repo).encode())
    if (folder / CARD).is_file() and with_facts and (base is None or base.repo == record.base):
        text, old = (folder / CARD).read_text("utf-8"), json.dumps(folder.resolve().name)
        lines = [p.replace(old, json.dumps(repo)) if "from_pretrained(" in p else p for p in text.split("\n")]
        made[CARD] = Upload("\n".join(lines).encode())
    else:
        quoted = [to_record(fact) for fact in facts] if with_facts else []
        made[CARD] = Upload(merged_card(data, {}, repo, with_facts=with_facts, facts=quoted).encode())
    if not with_facts:
        for name, content in made.items():
            if isinstance(content, Upload) and isinstance(content.source, bytes):
                check_silent(name, content.source.decode(), facts)
    return made
