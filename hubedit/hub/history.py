"""What was edited into a patch or a merged model, step by step, and when."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hubedit.errors import HubError
from hubedit.hub.account import client, patiently
from hubedit.hub.changes import resolve
from hubedit.hub.contents import CONFIG, FACTS, RECORD, REPORT
from hubedit.model.fetch import is_path
from hubedit.remote import told

_WANTED = (RECORD, CONFIG, FACTS, REPORT)


@dataclass(frozen=True)
class Step:
    """One patch. `date`: ISO 8601, of the commit or the file; `facts`: (prompt, target) where they were not
    left out, `count` of them; `metrics`: shares 0..1 by name, from its report."""

    id: str
    name: str
    date: str
    base: str
    base_commit: str
    method: str
    count: int
    facts: tuple[tuple[str, str], ...]
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class CommitLine:
    """One commit of the repository."""

    commit: str
    date: str
    author: str
    title: str


@dataclass(frozen=True)
class History:
    """`kind`: "patch" or "merged", "" for a repository that holds neither now; `commits`: newest first."""

    ref: str
    kind: str
    commit: str
    steps: tuple[Step, ...]
    commits: tuple[CommitLine, ...] = ()


def history(ref: str) -> History:
    """The lineage of a local folder or of `owner/name[@revision]`. Raises HubError."""
    if is_path(ref):
        folder = Path(ref).expanduser()
        if not (folder / RECORD).is_file():
            raise HubError(f"{ref} holds no {RECORD}", "give a patch or a merged model that hubedit wrote")
        kind, steps = _read(folder, {})
        return History(ref, kind, "", steps)
    repo, _, revision = ref.partition("@")
    api = client()
    commit = resolve(api, repo, revision or "main")
    lines = patiently(lambda: api.list_repo_commits(repo, revision=commit), repo, commit)
    commits = tuple(
        CommitLine(c.commit_id, c.created_at.isoformat(), ", ".join(c.authors), c.title) for c in lines
    )
    folder = _fetch(repo, commit)
    if not (folder / RECORD).is_file():
        return History(repo, "", commit, (), commits)
    records = sorted(path.relative_to(folder).as_posix() for path in folder.rglob(RECORD))
    found: Any = patiently(
        lambda: api.get_paths_info(repo, records, revision=commit, expand=True), repo, commit
    )
    dates = {f.path: f.last_commit.date.isoformat() for f in found if f.last_commit is not None}
    kind, steps = _read(folder, dates)
    return History(repo, kind, commit, steps, commits)


def _fetch(repo: str, commit: str) -> Path:
    from huggingface_hub import constants, snapshot_download

    wanted = [*_WANTED, *(f"patches/*/{name}" for name in _WANTED)]
    with told(repo, commit, kind=HubError, doing="download"):
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
    record = _json(folder / RECORD)
    if (folder / CONFIG).is_file():
        return "patch", (_step(folder, record, {}, _date(folder / RECORD, dates.get(RECORD))),)
    steps = []
    for number, entry in enumerate(record.get("lineage") or (), 1):
        place = str(entry.get("folder") or f"patches/{number}")
        inside = folder / place
        if ".." in Path(place).parts or not inside.is_dir():
            raise HubError(f"{folder} lacks {place}", "it was changed after hubedit wrote it")
        date = _date(inside / RECORD, dates.get(f"{place}/{RECORD}"))
        steps.append(_step(inside, _json(inside / RECORD), entry, date))
    return "merged", tuple(steps)


def _step(folder: Path, record: Mapping[str, Any], entry: Mapping[str, Any], date: str) -> Step:
    base, told_base = record.get("base") or {}, entry.get("base") or {}
    report = _json(folder / REPORT) if (folder / REPORT).is_file() else {}
    lines = (folder / FACTS).read_text("utf-8").split("\n") if (folder / FACTS).is_file() else []
    facts = [json.loads(line) for line in lines if line.strip()]
    metrics = report.get("metrics") or record.get("metrics") or {}
    return Step(
        id=str(entry.get("id") or ""),
        name=str(entry.get("name") or ""),
        date=date,
        base=str(base.get("ref") or told_base.get("ref") or ""),
        base_commit=str(base.get("commit") or told_base.get("commit") or ""),
        method=str(record.get("method") or ""),
        count=int((record.get("facts") or {}).get("count") or entry.get("facts") or len(facts)),
        facts=tuple((str(fact.get("prompt")), str(fact.get("target")).strip()) for fact in facts),
        metrics={name: float(v) for name, v in metrics.items() if isinstance(v, (int, float))},
    )


def _date(path: Path, known: str | None) -> str:
    return known or datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")


def _json(path: Path) -> dict[str, Any]:
    from hubedit.patch.adapter import read_json

    return read_json(path)
