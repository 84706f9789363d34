"""Take a merged model's repository back to its base, as a new commit."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hubedit.checkpoint.record import RECORD, Record
from hubedit.errors import HubError
from hubedit.hub.account import patiently
from hubedit.hub.changes import Content, Tree, read_tree, resolve
from hubedit.hub.contents import CARD, Base
from hubedit.hub.merged import Shards
from hubedit.hub.push import Pushed, Where, check_target, put
from hubedit.hub.stale import model_stale
from hubedit.progress import Progress, Silent

_KEPT = (".gitattributes",)


def revert_repo(where: Where, *, dry_run: bool = False, progress: Progress | None = None) -> Pushed:
    """Copies all files of the base's pinned commit back, on the server, and removes the patches.

    The history keeps the merged state. Raises HubError for a repository that hubedit did not merge, or
    whose base was a local folder; then it is as it was.
    """
    progress = progress or Silent()
    target = check_target(where, "model")
    api, repo = target.api, target.repo
    head = resolve(api, repo, target.place.revision)
    tree = read_tree(api, repo, head)
    with tempfile.TemporaryDirectory(prefix="hubedit-") as work:
        record = None
        if RECORD in tree:
            patiently(
                lambda: api.hf_hub_download(repo, RECORD, revision=head, local_dir=work),
                repo,
                doing="download",
            )
            record = Record.read(Path(work))
        if record is None:
            raise HubError(f"{repo} holds no merged patches", "nothing to revert")
        if not record.commit:
            raise HubError(
                f"the base of {repo} was the local folder {record.base}",
                "revert the model's folder here, then push it",
            )
        base = Base(record.base, record.commit)
        shards = Shards(api, base, read_tree(api, base.repo, base.commit), Path(work))
        files: dict[str, Content] = {
            path: shards.copy(path, target) for path in shards.tree if path not in _KEPT
        }

        def stale(found: Tree) -> list[str]:
            own = [path for path in (RECORD, CARD) if path in found and path not in files]
            return [*model_stale(files, found), *own]

        count = len(record.patches)
        message = where.message or f"Revert {count} patch{'' if count == 1 else 'es'}: {base.repo} again"
        return put(target, "model", files, stale, message, dry_run=dry_run, progress=progress)
