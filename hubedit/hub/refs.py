"""Whether a push may go to a branch, and under which tag: asked before anything is uploaded."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from hubedit.errors import HubError
from hubedit.hub.account import with_retries

if TYPE_CHECKING:
    from huggingface_hub import HfApi

# of git's rules for names, what people run into
_NAME = re.compile(r"(?!.*(\.\.|//|/\.|\.lock(/|$)|\./))[\w][\w./+-]*(?<![./])")


def check_tag(tag: str) -> None:
    """Raises HubError for a name that git does not take as a tag."""
    if not _NAME.fullmatch(tag):
        raise HubError(f"{tag!r} is no name for a tag", "take letters, digits, - and dots: --tag v1.0")


def check_branch(api: HfApi, repo: str, revision: str) -> None:
    """Raises HubError where a repository that is there has no such branch.

    `revision`: a full commit and `refs/...` are not checked here.
    """
    if revision.startswith("refs/") or re.fullmatch("[0-9a-f]{40}", revision):
        return
    refs: Any = with_retries(lambda: api.list_repo_refs(repo), repo)
    if any(found.name == revision for found in refs.branches):
        return
    if any(found.name == revision for found in refs.tags):
        raise HubError(
            f"{repo}: {revision} is a tag, nothing can be pushed to it", "give a branch with --revision"
        )
    raise HubError(
        f"{repo} has no branch {revision!r}", f"make it first: hf repos branch create {repo} {revision}"
    )
