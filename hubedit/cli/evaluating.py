"""What `hubedit eval` reads before it measures, and what it says of the numbers' origin."""

from __future__ import annotations

from collections.abc import Sequence
from json import loads
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubedit.errors import ConfigError

if TYPE_CHECKING:
    from hubedit.cache import Cache
    from hubedit.evaluate.damage import Parts
    from hubedit.evaluate.harness import Task
    from hubedit.facts import Fact
    from hubedit.model.editable import EditableModel
    from hubedit.patch import Patch
    from hubedit.progress import Progress


def wanted_tasks(tasks: str, source: str, folder: Path | None) -> tuple[tuple[Task, ...], Path | None]:
    """The harness's tasks of --tasks and --abilities, and the folder of definitions. Raises ConfigError."""
    from hubedit.evaluate import harness
    from hubedit.evaluate.abilities import abilities

    named: tuple[Task, ...] = ()
    if tasks:
        named, folder = harness.locate(tasks.split(","), folder)
    if source:
        more, own = abilities(source)
        if own is not None and folder is not None:
            raise ConfigError(
                "--abilities FILE and task files of your own exclude each other", "run eval for each"
            )
        known = {task.name for task in named}
        named, folder = (*named, *(task for task in more if task.name not in known)), folder or own
    if named:
        harness.require(named, folder)
    return named, folder


def wanted_forms(text: str) -> tuple[str, ...]:
    """The forms of --forms. Raises ConfigError for one that is not known."""
    from hubedit.model.forms import FORMS

    found = tuple(dict.fromkeys(word.strip() for word in text.split(",")))
    if found == ("none",):
        return ()
    for word in found:
        if word not in FORMS:
            raise ConfigError(f"no such form: {word!r}", f"one or more of {', '.join(FORMS)}, or none")
    return found


def facts_of(
    edit: Patch | None, facts: Path | None, dataset: str, limit: int
) -> tuple[list[Fact], Sequence[Fact], list[str]]:
    """What is asked, the records that may be bystanders, and what has to be said of it."""
    from hubedit.evaluate import records
    from hubedit.facts import load_facts

    path = dataset or (str(facts) if facts is not None else "")
    # what is not asked may be a bystander, and needs no check as for an edit
    others = records.dataset(path).facts if path and edit is not None else ()
    if dataset:
        found = records.dataset(dataset, limit=limit)
        count = f"{len(found.skipped)} of {found.total} records cannot be used, the first: "
        return list(found.facts), others, [count + found.skipped[0]] if found.skipped else []
    if facts is not None:
        return list(load_facts(facts, limit=limit).facts), others, []
    own = list(edit.facts) if edit is not None else []
    if edit is not None and not own:
        raise ConfigError("the patch was saved without its facts", "give them with --facts")
    return own[:limit] if limit else own, (), []


def told(edit: Patch | None) -> list[str]:
    """What was said of a patch's figures when it was made."""
    notes = edit.record.get("notes") if edit is not None else None
    known = [note for note in notes if isinstance(note, str)] if isinstance(notes, list) else []
    return [f"when the patch was made: {note}" for note in known]


def parts_of(edit: Patch | None, em: EditableModel) -> Parts | None:
    """Whose the patch's rows are, where that is known."""
    from hubedit.evaluate.damage import Parts
    from hubedit.patch.owners import owners

    rows = owners(edit) if edit is not None else None
    if edit is None or rows is None:
        return None
    return Parts(edit.facts, {site: tuple(rows[module]) for module, site in edit.sites(em).items()})


def rows_of(
    em: EditableModel, text: str, seed: int, cache: Cache, progress: Progress
) -> tuple[list[list[int]], dict[str, Any]]:
    """The unrelated text as tokens, the same as in the report of `hubedit apply`; and what it is."""
    if text == "none":
        return [], {}

    from hubedit.config import StatsConfig
    from hubedit.edit.statistics.corpus import unseen_rows
    from hubedit.environment import portable

    rows, used = unseen_rows(em, StatsConfig(corpus=text, seed=seed), cache, progress)
    source: dict[str, Any] = {"corpus": portable(text), "rows": sum(1 for row in rows if len(row) > 1)}
    # of a corpus, an edit may have used more than it does by default
    return rows, source | ({"used": used} if text == "self" else {})


def evaluated_of(
    em: EditableModel,
    edit: Patch | None,
    patch: Path | None,
    merged: EditableModel | None,
    judge: EditableModel | None,
    command: Sequence[str],
) -> dict[str, Any]:
    """Which models, patch and versions the numbers belong to; no path of this machine."""
    from datetime import UTC, datetime

    from hubedit.environment import base_name, device_name, portable, versions
    from hubedit.patch.identity import patch_id

    found: dict[str, Any] = {"model": base_name(em), "commit": em.commit}
    if edit is not None and patch is not None:
        found |= {"patch": patch.resolve().name, "patch_id": patch_id(edit)}
    if merged is not None:
        config = loads((merged.path / "config.json").read_text(encoding="utf-8"))
        stored = config.get("dtype") or config.get("torch_dtype")
        found |= {"merged": base_name(merged), "merged_dtype": stored}
    if judge is not None:
        found["judge"] = base_name(judge)
    return {
        **found,
        "dtype": str(em.dtype).removeprefix("torch."),
        "device": device_name(em.device),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "versions": versions(),
        "command": [portable(word) for word in command],
    }


def check_merged(merged: Path, edit: Patch | None) -> None:
    """The merged model is there and beside a patch holds only that. Raises ConfigError, ModelError."""
    from hubedit.checkpoint.merge_record import Record
    from hubedit.model.fetch import find
    from hubedit.patch.identity import patch_id

    if len(merged.parts) == 1 and not merged.exists():
        raise ConfigError(f"no such folder: {merged}", "a Hub repository is written owner/name")
    folder = find(str(merged)).folder
    if edit is None:
        return
    record, own = Record.read(folder), patch_id(edit)[:12]
    ids = [each.id for each in record.patches] if record else []
    if ids == [own]:
        return
    what = f"{merged} holds {', '.join(ids)}, not this patch alone ({own})"
    raise ConfigError(
        what if ids else f"hubedit merged no patch into {merged}",
        "give a folder of `hubedit merge PATCH --out DIR`, or leave out --patch",
    )
