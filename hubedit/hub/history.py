"""What was edited into a patch or a merged model, step by step, and when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hubedit.checkpoint.record import PATCHES, Entry, Record
from hubedit.errors import HubError
from hubedit.hub.account import client, with_retries
from hubedit.hub.changes import resolve
from hubedit.hub.contents import CONFIG, FACTS, RECORD, REPORT
from hubedit.model.fetch import is_path
from hubedit.patch.adapter import read_json
from hubedit.patch.value import read_facts
from hubedit.remote import translated_errors

_WANTED = (RECORD, CONFIG, FACTS, REPORT)
_CHANGED = "it was changed or damaged after hubedit wrote it"


@dataclass(frozen=True)
class Step:
    """One patch, or one step of a patch that was made in several.

    `date`: ISO 8601, of the commit or the file; `facts`: (prompt, target) where they were not left out,
    `count` of them; `metrics`: shares 0..1 by name, from its report; `drift`, `norm`: of the weight where
    each is largest, the norm relative to the weight's; `whole`: both of all steps up to this one together,
    which is what changes the base; `older`: how many facts the older steps had, how many of them were asked,
    and which share held before and after.
    """

    id: str
    name: str
    date: str
    base: str
    base_commit: str
    method: str
    count: int
    facts: tuple[tuple[str, str], ...]
    metrics: Mapping[str, float]
    drift: float | None = None
    norm: float | None = None
    older: Mapping[str, float] = field(default_factory=dict)
    whole: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class CommitLine:
    """One commit of the repository."""

    commit: str
    date: str
    author: str
    title: str


@dataclass(frozen=True)
class History:
    """`kind`: "patch" or "merged", "" for what holds neither now; `commits`: newest first."""

    ref: str
    kind: str
    commit: str
    steps: tuple[Step, ...]
    commits: tuple[CommitLine, ...] = ()


def history(ref: str) -> History:
    """The lineage of a local folder or of `owner/name[@revision]`.

    Raises HubError; PatchError and CheckpointError for a damaged file.
    """
    if is_path(ref):
        folder = Path(ref).expanduser()
        if not (folder / RECORD).is_file():
            if (folder / "config.json").is_file():
                return History(ref, "", "", ())  # a model, with nothing merged, or all of it taken out again
            raise HubError(f"{ref} holds no {RECORD}", "give a patch or a merged model that hubedit wrote")
        kind, steps = _read(folder, {})
        return History(ref, kind, "", steps)
    repo, _, revision = ref.partition("@")
    api = client()
    commit = resolve(api, repo, revision or "main")
    lines = with_retries(lambda: api.list_repo_commits(repo, revision=commit), repo, commit)
    commits = tuple(
        CommitLine(c.commit_id, c.created_at.isoformat(), ", ".join(c.authors), c.title) for c in lines
    )
    folder = _fetch(repo, commit)
    if not (folder / RECORD).is_file():
        return History(repo, "", commit, (), commits)
    records = sorted(path.relative_to(folder).as_posix() for path in folder.rglob(RECORD))
    found: Any = with_retries(
        lambda: api.get_paths_info(repo, records, revision=commit, expand=True), repo, commit
    )
    dates = {f.path: f.last_commit.date.isoformat() for f in found if f.last_commit is not None}
    kind, steps = _read(folder, dates)
    return History(repo, kind, commit, steps, commits)


def _fetch(repo: str, commit: str) -> Path:
    from huggingface_hub import constants, snapshot_download

    wanted = [*_WANTED, *(f"patches/*/{name}" for name in _WANTED)]
    with translated_errors(repo, commit, kind=HubError, doing="download"):
        return Path(
            snapshot_download(
                repo,
                revision=commit,
                allow_patterns=wanted,
                local_files_only=bool(constants.HF_HUB_OFFLINE),
            )
        )


def _read(folder: Path, dates: Mapping[str, str]) -> tuple[str, tuple[Step, ...]]:
    """Kind, and the steps."""
    if (folder / CONFIG).is_file():
        date = _date(folder / RECORD, dates.get(RECORD))
        return "patch", _steps(folder, date) or (_step(folder, None, date),)
    record = Record.read(folder)
    if record is None:
        raise HubError(f"{folder / RECORD} is of no patch and of no merged model", _CHANGED)
    steps = []
    for number, entry in enumerate(record.patches, 1):
        place = f"{PATCHES}/{number}"
        if not (folder / place).is_dir():
            raise HubError(f"{folder} lacks {place}", _CHANGED)
        date = _date(folder / place / RECORD, dates.get(f"{place}/{RECORD}"))
        steps.append(_step(folder / place, entry, date))
    return "merged", tuple(steps)


def _step(folder: Path, entry: Entry | None, date: str) -> Step:
    """`entry`: what the merged model's record says of the patch."""
    file = folder / RECORD
    record = read_json(file)
    base = _part(file, record, "base")
    report = read_json(folder / REPORT) if (folder / REPORT).is_file() else {}
    facts = read_facts(folder / FACTS)
    count = _part(file, record, "facts").get("count")
    known = count if type(count) is int else entry.facts if entry else 0
    metrics = _part(folder / REPORT, report, "metrics") or _part(file, record, "metrics")
    return Step(
        id=entry.id if entry else "",
        name=entry.name if entry else "",
        date=date,
        base=str(base.get("ref") or (entry.base if entry else "")),
        base_commit=str(base.get("commit") or (entry.commit if entry else "")),
        method=str(record.get("method") or ""),
        count=known or len(facts),
        facts=tuple((fact.prompt, fact.target.strip()) for fact in facts),
        metrics=_numbers(metrics),
    )


def _steps(folder: Path, date: str) -> tuple[Step, ...]:
    """The steps of a patch that was made in several; none for another. Raises HubError where they are
    damaged."""
    record = read_json(folder / RECORD)
    steps, facts = record.get("steps") or (), read_facts(folder / FACTS)
    base = _part(folder / RECORD, record, "base")
    found, at = [], 0
    try:
        for step in steps:
            own = facts[at : at + step["facts"]]
            at += step["facts"]
            found.append(
                Step(
                    id=str(step["id"])[:12],
                    name="",
                    date=date,
                    base=str(base.get("ref") or ""),
                    base_commit=str(base.get("commit") or ""),
                    method=str(step.get("method") or ""),
                    count=int(step["facts"]),
                    facts=tuple((fact.prompt, fact.target.strip()) for fact in own),
                    metrics=_numbers(step.get("metrics")),
                    drift=step.get("drift"),
                    norm=step.get("norm"),
                    older=_numbers(step.get("older")),
                    whole=_numbers(step.get("whole")),
                )
            )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise HubError(f"{folder / RECORD}: steps cannot be read ({error})", _CHANGED) from error
    return tuple(found)


def _numbers(value: Any) -> dict[str, float]:
    """The numbers of a JSON object; none where it is missing."""
    return {name: float(v) for name, v in (value or {}).items() if isinstance(v, (int, float))}


def _part(file: Path, data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """An object inside a JSON object; empty where it is missing."""
    value = data.get(key)
    if value is not None and not isinstance(value, Mapping):
        raise HubError(f"{file}: {key} is no JSON object", _CHANGED)
    return value or {}


def _date(path: Path, known: str | None) -> str:
    return known or datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")
