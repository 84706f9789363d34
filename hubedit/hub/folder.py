"""Push the folder of a merged model: what equals the base's files is copied on the server."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hubedit.checkpoint.read import tensor_digest
from hubedit.checkpoint.record import ORIGINALS, PATCHES, RECORD, Record
from hubedit.checkpoint.remote import Remote
from hubedit.errors import HubError
from hubedit.hub.changes import Content, Copy, Tree, Upload, read_tree, resolve
from hubedit.hub.contents import CARD, FACTS, REPORT, Base
from hubedit.hub.private import check_silent, numbers_only, without_paths
from hubedit.hub.push import Pushed, Target, put
from hubedit.hub.stale import model_stale
from hubedit.progress import Progress, Silent

_HIDDEN = (".git", ".cache", "__pycache__")
_TELLING = ("report.html", "plots/relations.png")


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
        _check_base(folder, record, there, tree, progress)
    progress.start("comparing with the base")
    files: dict[str, Content] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if any(part in _HIDDEN for part in path.relative_to(folder).parts):
            continue
        if there and name.startswith(f"{ORIGINALS}/"):
            continue  # the base is at the Hub
        files[name] = _content(path, name, tree, there)
    files |= _texts(folder, target.repo, record, there, files, with_facts)
    if not with_facts:
        files = {name: c for name, c in files.items() if not name.endswith((FACTS, *_TELLING))}
    progress.finish(f"{len(files)} files")
    count = sum(entry.facts for entry in record.patches)
    name = there.repo if there else record.base
    message = target.where.message or f"{name} with {count} edited fact{'' if count == 1 else 's'}"
    return put(
        target, "model", files, lambda t: model_stale(files, t), message, dry_run=dry_run, progress=progress
    )


def _check_base(folder: Path, record: Record, base: Base, tree: Tree, progress: Progress) -> None:
    """Raises HubError unless the repository has the weights that the patches were merged into.

    Files without changes must be the same; of the others the changed tensors are read from the Hub.
    """
    wrong = HubError(
        f"{base.repo} is not the base that {folder} was merged from: its weights differ",
        "push the base model as it is, or give the right --base",
    )
    touched = {tensor.base_file for tensor in record.tensors.values()}
    for file in sorted(folder.glob("*.safetensors")):
        if file.name not in touched and not record.converted:
            there = tree.get(file.name)
            if there is None or not Upload(file).same(there):
                raise wrong
    with tempfile.TemporaryDirectory(prefix="hubedit-") as work:
        remote = Remote(base.repo, base.commit, Path(work), progress)
        for name, tensor in record.tensors.items():
            entry = remote.fetch(name, tensor) if tensor.base_file in tree else None
            if entry is None or tensor_digest(entry) != tensor.base_sha256:
                raise wrong
            entry.file.unlink()


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
    from hubedit.report.card import merged_card

    data = without_paths(record.to_json())
    if base is not None:
        data["base"] |= {"ref": base.repo, "commit": base.commit}
        data["originals"] = False
    made: dict[str, Content] = {RECORD: _json(data)}
    told: list[Any] = []
    facts = [
        f for n in range(1, len(record.patches) + 1) for f in Patch.load(folder / PATCHES / str(n)).facts
    ]
    for name in files:
        path = folder / name
        if name.endswith("adapter_config.json"):
            config = json.loads(path.read_text("utf-8"))
            changed = {
                "base_model_name_or_path": data["base"]["ref"],
                "revision": data["base"]["commit"] or None,
            }
            local = not config.get("revision")
            made[name] = _json(config | changed if local else config)
        elif name.startswith(f"{PATCHES}/") and name.endswith(RECORD):
            made[name] = _json(without_paths(json.loads(path.read_text("utf-8"))))
        elif name.endswith(REPORT):
            report = without_paths(json.loads(path.read_text("utf-8")))
            made[name] = _json(report if with_facts else numbers_only(report))
        elif name.endswith(FACTS) and with_facts:
            told += [json.loads(line) for line in path.read_text("utf-8").split("\n") if line.strip()]
        elif name.endswith(CARD) and name != CARD and not with_facts:
            one = json.loads(path.with_name(RECORD).read_text("utf-8"))
            from hubedit.report.card import patch_card

            made[name] = Upload(patch_card(without_paths(one), with_facts=False, name=repo).encode())
    if (folder / CARD).is_file() and with_facts and (base is None or base.repo == record.base):
        text, old = (folder / CARD).read_text("utf-8"), json.dumps(folder.resolve().name)
        lines = [p.replace(old, json.dumps(repo)) if "from_pretrained(" in p else p for p in text.split("\n")]
        made[CARD] = Upload("\n".join(lines).encode())
    else:
        made[CARD] = Upload(merged_card(data, {}, repo, with_facts=with_facts, facts=told).encode())
    if not with_facts:
        for name, content in made.items():
            if isinstance(content, Upload) and isinstance(content.source, bytes):
                check_silent(name, content.source.decode(), facts)
    return made


def _json(data: Mapping[str, Any]) -> Upload:
    text = json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return Upload(f"{text}\n".encode())
