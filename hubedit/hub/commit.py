"""One commit, or none: a repository is never left half updated, and the same push twice changes nothing.

A commit whose answer is lost may have happened, so after every failure the repository is read again and
only what is still missing is committed, on the parent that it has now.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hubedit.errors import HubError
from hubedit.hub.account import Incomplete, with_retries
from hubedit.hub.changes import Changes, Content, Copy, Tree, compare, read_tree, resolve
from hubedit.remote import WAITS, Trouble, client_errors, explain

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi

    Operation = CommitOperationAdd | CommitOperationCopy | CommitOperationDelete

_AGAIN = "run the same command again"
Stale = Callable[[Tree], Iterable[str]]


@dataclass(frozen=True)
class Place:
    """Where a commit goes. `pr`: as a new pull request by `user` against `revision`."""

    repo: str
    revision: str = "main"
    pr: bool = False
    user: str = ""


@dataclass(frozen=True)
class Committed:
    """`commit`: the hash that holds everything now; `created`: whether this push made it; `url`: of the
    commit, or of the pull request."""

    commit: str
    created: bool
    url: str
    revision: str
    changes: Changes


def commit(
    api: HfApi, place: Place, wanted: Mapping[str, Content], stale: Stale, message: str, details: str = ""
) -> Committed:
    """Makes the repository hold `wanted` and nothing of `stale`. Raises HubError; then nothing has changed.

    `stale`: the paths of a tree that must go. Files that neither names are left alone.
    """
    if place.pr and (found := _own_pr(api, place, wanted, stale)) is not None:
        return found
    first = head = resolve(api, place.repo, place.revision)
    before = tree = read_tree(api, place.repo, head)
    requested = compare(wanted, stale(tree), tree)
    changes, contents = requested, dict(wanted)
    for wait in (*WAITS, None):
        if changes.nothing:
            return _done(api, place, head, head != first, requested)
        try:
            made = api.create_commit(
                place.repo,
                _operations(changes),
                commit_message=message,
                commit_description=details,
                revision=place.revision,
                parent_commit=head,
                create_pr=place.pr,
            )
        except client_errors() as error:
            trouble = explain(error, place.repo, place.revision, doing="push to")
            if _copy_failed(error, trouble) and changes.copied:
                contents |= {path: copy.otherwise() for path, copy in changes.copied.items()}
            elif wait is None or not (trouble.passing or trouble.kind == "race"):
                raise HubError(trouble.message, trouble.hint) from error
            else:
                time.sleep(wait if trouble.passing else 0)
        else:
            revision = "refs/pr/" + str(made.pr_num) if place.pr else place.revision
            _check(api, place.repo, made.oid, contents, stale)
            return Committed(made.oid, True, str(made.pr_url or made.commit_url), revision, requested)
        if place.pr and (found := _own_pr(api, place, contents, stale)) is not None:
            return found
        head = resolve(api, place.repo, place.revision)
        tree = read_tree(api, place.repo, head)
        _no_conflict(place.repo, before, tree, contents, stale)
        changes = compare(contents, stale(tree), tree)
    raise HubError(f"{place.repo} keeps changing or failing", _AGAIN)


def _operations(changes: Changes) -> list[Operation]:
    from huggingface_hub import CommitOperationCopy, CommitOperationDelete

    made: list[Operation] = []
    for path, content in changes.put.items():
        if isinstance(content, Copy):
            made.append(
                CommitOperationCopy(
                    content.path,
                    path,
                    src_revision=content.commit,
                    src_repo_id=content.repo,
                    src_repo_type="model",
                )
            )
        else:
            made.append(content.operation(path))
    return [*made, *(CommitOperationDelete(path, is_folder=False) for path in changes.deleted)]


def _done(api: HfApi, place: Place, head: str, created: bool, changes: Changes) -> Committed:
    """The repository is as it shall be: at once, or because a commit whose answer was lost had happened."""
    url = f"{api.endpoint}/{place.repo}/commit/{head}"
    return Committed(head, created, url, place.revision, changes)


def _check(api: HfApi, repo: str, made: str, wanted: Mapping[str, Content], stale: Stale) -> None:
    """Raises HubError where the commit lacks something: a .gitignore there drops files in silence."""
    tree = read_tree(api, repo, made)
    left = compare(wanted, stale(tree), tree)
    if not left.nothing:
        path = next(iter((*left.put, *left.deleted)))
        raise Incomplete(
            f"commit {made[:8]} of {repo} lacks {path}",
            "remove the .gitignore there, or push to another repository",
        )


def _no_conflict(repo: str, before: Tree, now: Tree, wanted: Mapping[str, Content], stale: Stale) -> None:
    """Raises HubError where somebody else changed what this push would overwrite."""
    for path in sorted({*wanted, *stale(before), *stale(now)}):
        old, new = before.get(path), now.get(path)
        if old == new or (new is None and path not in wanted):
            continue
        if new is None or path not in wanted or not wanted[path].same(new):
            raise HubError(
                f"somebody else changed {path} of {repo} meanwhile",
                "look at it; to replace it, run the same command again",
            )


def _own_pr(api: HfApi, place: Place, wanted: Mapping[str, Content], stale: Stale) -> Committed | None:
    """An open pull request of this user that already holds all of it."""
    found = with_retries(
        lambda: list(
            api.get_repo_discussions(
                place.repo, author=place.user, discussion_type="pull_request", discussion_status="open"
            )
        ),
        place.repo,
    )
    for discussion in found:
        if not discussion.is_pull_request or discussion.status != "open":
            continue
        revision = f"refs/pr/{discussion.num}"
        head = resolve(api, place.repo, revision)
        tree = read_tree(api, place.repo, head)
        changes = compare(wanted, stale(tree), tree)
        if changes.nothing:
            return Committed(head, False, discussion.url, revision, changes)
    return None


def _copy_failed(error: BaseException, trouble: Trouble) -> bool:
    """Whether the server refused to copy, for want of Xet on the source or of a right to read it."""
    from huggingface_hub.errors import HfHubHTTPError

    address = str(error.response.url) if isinstance(error, HfHubHTTPError) else ""
    return (
        trouble.kind == "copy"
        or (isinstance(error, ValueError) and str(error).startswith("Cannot duplicate"))
        or ("/lfs-files/duplicate" in address and not trouble.passing)
    )
