"""Who pushes, and whether they may: asked before any long work. The token itself never leaves the client."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

import hubedit
from hubedit.errors import HubEditError, HubError
from hubedit.remote import WAITS, client_errors, explain, no_token, redact_the_clients_log

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_T = TypeVar("_T")


@dataclass(frozen=True)
class Visibility:
    """What is known of a repository before a push. `private`: as it is, or as it will be made."""

    repo: str
    exists: bool
    private: bool


def client() -> HfApi:
    """The Hub's client, with the token of the environment or the saved login."""
    from huggingface_hub import HfApi

    redact_the_clients_log()  # it prints the signed addresses of uploads that it tries again
    return HfApi(library_name="hubedit", library_version=hubedit.__version__)


def with_retries(
    request: Callable[[], _T], repo: str, revision: str | None = None, *, doing: str = "reach"
) -> _T:
    """The answer of a request that changes nothing, tried again where trouble may pass. Raises HubError."""
    for wait in (*WAITS, None):
        try:
            return request()
        except client_errors() as error:
            trouble = explain(error, repo, revision, doing=doing)
            if wait is None or not trouble.passing:
                raise HubError(trouble.message, trouble.hint) from error
            time.sleep(wait)
    raise AssertionError("not reached")


def writer(api: HfApi, repo: str, *, pr: bool = False, dry_run: bool = False) -> str:
    """Full name of the repository that the login may write to. Raises HubError where it may not.

    `repo` without an owner is the user's own. A pull request may go to anybody's repository. `dry_run`: with
    no login nothing is asked, since nothing will be sent.
    """
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import HFValidationError

    validate_repo_id: Any = import_module("huggingface_hub.utils").validate_repo_id

    name = repo.strip()
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise HubError(f"{repo!r} is not a repository name", "write owner/name") from error
    if constants.HF_HUB_OFFLINE:
        raise HubError("nothing can be pushed: HF_HUB_OFFLINE is set", "unset HF_HUB_OFFLINE")
    if get_token() is None:
        if dry_run and "/" in name:
            return name
        trouble = no_token()
        raise HubError(trouble.message, trouble.hint)
    account = with_retries(api.whoami, name)
    user = str(account.get("name"))
    owner = name.partition("/")[0] if "/" in name else user
    _check_role(account, owner, pr)
    return name if "/" in name else f"{user}/{name}"


def visibility(api: HfApi, repo: str, private: bool | None) -> Visibility:
    """How the repository is, or will be. Raises HubError where it is not as the user asked."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    def ask() -> bool | None:
        try:
            return bool(api.repo_info(repo).private)
        except GatedRepoError:
            return False
        except RepositoryNotFoundError:
            return None

    found = with_retries(ask, repo)
    if found is None:
        return Visibility(repo, False, private is not False)
    if private is not None and private != found:
        now, wanted = ("private", "--public") if found else ("public", "--private")
        raise HubError(
            f"{repo} is {now} already, and {wanted} was given",
            f"leave out {wanted}, or change it first in the repository's settings",
        )
    return Visibility(repo, True, found)


@contextmanager
def created(api: HfApi, wanted: Visibility) -> Iterator[Visibility]:
    """Makes the repository where it is not there yet; yields how it is then. Raises HubError.

    An error of the block says that a repository which was made here stays, without the push. It is not
    deleted: what was uploaded stays with it and is not sent again.
    """
    if wanted.exists:
        yield wanted
        return
    with_retries(
        lambda: api.create_repo(wanted.repo, private=wanted.private, exist_ok=True),
        wanted.repo,
        doing="create",
    )
    try:
        yield replace(wanted, exists=True)
    except Incomplete:
        raise
    except HubEditError as error:
        seen = "private" if wanted.private else "public"
        message = f"{error.message}; {wanted.repo} ({seen}) was created and is empty"
        again = "the same command goes on with it"
        raise type(error)(message, f"{error.hint}; {again}" if error.hint else again) from error


class Incomplete(HubError):
    """The commit was made, and something after it failed."""


def _check_role(account: dict[str, Any], owner: str, pr: bool) -> None:
    """Raises HubError for a token that cannot write to what `owner` has."""
    token = (account.get("auth") or {}).get("accessToken") or {}
    role = token.get("role")
    hint = "make a token with the role `write` at the Hub's settings, then run `hf auth login`"
    if role == "read":
        raise HubError("the Hub token can only read", hint)
    if role == "fineGrained" and not _may_write(token.get("fineGrained") or {}, owner, pr):
        raise HubError(f"the Hub token has no right to write to repositories of {owner}", hint)
    if pr or owner == account.get("name"):
        return
    organisations = {str(o.get("name")): o.get("roleInOrg") for o in account.get("orgs") or ()}
    if owner not in organisations:
        raise HubError(
            f"{account.get('name')} cannot write to repositories of {owner}",
            "push to your own name, or open a pull request with --pr",
        )
    if organisations[owner] == "read":
        raise HubError(
            f"{account.get('name')} may only read in the organisation {owner}", "ask its admins for more"
        )


def _may_write(rights: dict[str, Any], owner: str, pr: bool) -> bool:
    """Whether a fine-grained token may write; for which repositories is not known here."""
    wanted = {"repo.write", *(("discussion.write",) if pr else ())}
    if pr and wanted & set(rights.get("global") or ()):
        return True
    return any(
        wanted & set(scope.get("permissions") or ())
        and (pr or str((scope.get("entity") or {}).get("name", "")).partition("/")[0] == owner)
        for scope in rights.get("scoped") or ()
    )
