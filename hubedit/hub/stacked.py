"""The patches of a merged model's repository: read from it, and what lies beside the weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from hubedit.checkpoint.merge_record import PATCHES, RECORD
from hubedit.checkpoint.stack import Stack
from hubedit.facts.dump import to_record
from hubedit.hub import contents
from hubedit.hub.changes import Content, Upload
from hubedit.hub.contents import Base
from hubedit.hub.layout import layout as layout_of
from hubedit.hub.shards import Shards


def stack_at(shards: Shards) -> Stack:
    """The patches that a repository's files hold, and the files' layout. Raises HubError, CheckpointError."""
    layout = layout_of(shards.api, shards.base, shards.work)
    place = shards.work / ".state"
    for path in shards.tree if RECORD in shards.tree else ():
        if path == RECORD or path.startswith(f"{PATCHES}/"):
            file = shards.fetch(path)
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            file.rename(place / path)
    return Stack.over(layout, place)


def older(shards: Shards, stack: Stack, repo: str, with_facts: bool) -> list[contents.Contents]:
    """The patches of a stack, as `stack_at` fetched them, fit for a repository."""
    made = []
    for number, each in enumerate(stack.members, 1):
        assert stack.record is not None
        base = None if each.patch.commit else Base(stack.record.base, stack.record.commit)
        folder = shards.work / ".state" / PATCHES / str(number)
        made.append(contents.patch_contents(folder, repo, base=base, with_facts=with_facts))
    return made


def model_files(
    repo: str, record: Mapping[str, Any], patches: Sequence[contents.Contents], with_facts: bool
) -> dict[str, Content]:
    """The merged model's card and record, and the patches under patches/1, patches/2, ..."""
    from hubedit.report.card import merged_card

    reports = [_report(each) for each in patches]
    known = [to_record(fact) for each in patches for fact in each.patch.facts] if with_facts else []
    # the patches' figures are shown as theirs: nobody has measured the merged model
    shown = {**record, "reports": reports}
    card = merged_card(shown, None, repo, with_facts=with_facts, facts=known)
    return {
        **{
            f"{PATCHES}/{number}/{name}": content
            for number, each in enumerate(patches, 1)
            for name, content in each.files.items()
        },
        "README.md": Upload(card.encode()),
        RECORD: Upload(record_text(record)),
    }


def record_text(record: Mapping[str, Any]) -> bytes:
    """Content of hubedit.json."""
    text = json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()


def _report(made: contents.Contents) -> dict[str, Any]:
    found = made.files.get(contents.REPORT)
    if isinstance(found, Upload) and isinstance(found.source, bytes):
        report: dict[str, Any] = json.loads(found.source)
        return report
    return {}
