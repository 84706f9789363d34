"""What can go wrong between here and the Hub: every error of its client as one line and the next step.

The client raises its own errors, those of its HTTP library (whose name has changed once), those of Xet
(builtin ones), and wraps some of them in each other. huggingface_hub is imported when it is needed.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from hubedit.errors import HubEditError

Kind = Literal[
    "name", "token", "gated", "missing", "revision", "file", "offline", "network", "server", "busy", "race",
    "rights", "quota", "disk", "copy", "refused",
]  # fmt: skip
WAITS = (0.5, 1.0, 2.0, 4.0)
"""Seconds before each further try of a request that failed in passing."""
AGAIN = "run the same command again; what was uploaded is not sent twice"
# a token of the Hub; the query of an address, where presigned uploads have their signature
_TOKEN = re.compile(r"\b(?:hf|api_org)_[A-Za-z0-9]{20,}")
_QUERY = re.compile(r"(https?://[^\s?'\"]+)\?[^\s'\"]*")
_FULL = ("storage", "quota", "limit reached", "payment")


@dataclass(frozen=True)
class Trouble:
    """One line, the next step, and what kind of trouble it is. `status`: of HTTP, 0 where there was none."""

    message: str
    hint: str
    kind: Kind
    status: int = 0

    @property
    def passing(self) -> bool:
        """Whether the same request may succeed a moment later."""
        return self.kind in ("network", "server", "busy")


def client_errors() -> tuple[type[BaseException], ...]:
    """What the client raises. OSError is among them: some of its errors are plain ones."""
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        HFValidationError,
        XetDownloadError,
    )

    # the base class of the HTTP library's errors, under whichever name
    transport: type[BaseException] = HfHubHTTPError.__mro__[1]
    own = (HFValidationError, EntryNotFoundError, XetDownloadError)
    # uploads are wrapped in RuntimeError, malformed answers and refused LFS objects are ValueError
    return (*own, *_copying(), transport, OSError, RuntimeError, ValueError)


def _copying() -> tuple[type[BaseException], ...]:
    """What the client raises where the server copies no file; older clients (1.3) have no such error."""
    from huggingface_hub import errors

    found = getattr(errors, "FileDuplicationError", None)
    return (found,) if found is not None else ()


@contextmanager
def translated_errors(
    repo: str, revision: str | None = None, *, kind: type[HubEditError], doing: str = "reach"
) -> Iterator[None]:
    """Turns the client's errors into `kind`. `doing`: what failed, "download", "push to"."""
    redact_the_clients_log()
    try:
        yield
    except HubEditError:
        raise
    except client_errors() as error:
        trouble = explain(error, repo, revision, doing=doing)
        raise kind(trouble.message, trouble.hint) from error


class _Redacting(logging.Filter):
    """The client's own lines ("... thrown while requesting PUT ...") hold addresses with signatures."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redacted(record.getMessage()), ()
        return True


def redact_the_clients_log() -> None:
    """What the client itself prints holds no token and no signature from now on."""
    from huggingface_hub.utils.logging import get_logger

    # what its loggers pass on comes to the handlers of the one above them all
    for handler in get_logger().handlers:
        if not any(isinstance(each, _Redacting) for each in handler.filters):
            handler.addFilter(_Redacting())


def explain(error: BaseException, repo: str, revision: str | None = None, *, doing: str = "reach") -> Trouble:
    """What an error of the client means for someone who works with `repo`."""
    from huggingface_hub import constants
    from huggingface_hub import errors as hf

    chain = list(_chain(error))
    for inner in chain:
        if isinstance(inner, hf.HFValidationError):
            return Trouble(
                f"{repo!r} is not a repository name", "write owner/name, or a path to a folder", "name"
            )
        if isinstance(inner, hf.LocalTokenNotFoundError):
            return no_token()
        if isinstance(inner, hf.OfflineModeIsEnabled) or _cold(inner, constants.HF_HUB_OFFLINE):
            hint = "unset HF_HUB_OFFLINE, or download it first"
            if not repo.startswith("."):
                hint += f"; or, if {repo} is a folder, check the path: there is none here"
            return Trouble(f"{repo} is not in the local cache, and HF_HUB_OFFLINE is set", hint, "offline")
        if isinstance(inner, _copying()):
            return Trouble(f"the Hub cannot copy files to {repo}: {line(inner)}", "", "copy")
        if isinstance(inner, hf.HfHubHTTPError):
            return _answered(inner, repo, revision, doing)
    transport: type[BaseException] = hf.HfHubHTTPError.__mro__[1]
    for inner in chain:
        away = isinstance(inner, (transport, ConnectionError, TimeoutError, hf.LocalEntryNotFoundError))
        if away or _is_xet(inner):
            more = f", and {repo} is not in the local cache" if doing == "download" else f": {line(inner)}"
            if doing in ("download", "read") and "/" not in repo:
                return Trouble(
                    f"there is no folder {repo} here, and {constants.ENDPOINT} cannot be reached",
                    "check the path; a repository of the Hub is written owner/name, and needs the network",
                    "network",
                )
            hint = "check the network, then run the same command again"
            if doing in ("download", "read") and not repo.startswith("."):
                hint += f"; or, if {repo} is a folder, check the path: there is none here"
            return Trouble(f"cannot reach {constants.ENDPOINT}{more}", hint, "network")
    if isinstance(error, hf.EntryNotFoundError):
        return Trouble(f"{repo} has no file that is needed: {line(error)}", "", "file")
    if isinstance(error, OSError):
        return Trouble(
            f"cannot {doing} {repo}: {error.strerror or line(error)}",
            "check the network and free disk space",
            "disk",
        )
    return Trouble(f"cannot {doing} {repo}: {line(error)}", AGAIN, "refused")


def no_token() -> Trouble:
    """Nobody is logged in."""
    return Trouble("no Hub token was found", "run `hf auth login`, or set HF_TOKEN", "token")


def line(error: BaseException) -> str:
    """The line of a message that says most: what the server said stands last, behind the address."""
    said = getattr(error, "server_message", None)
    text = str(said or error).strip() or type(error).__name__
    return redacted(text.splitlines()[0])[:200]


def redacted(text: str) -> str:
    """A server's or a client's words as they may be shown or logged: without the login's token, anything like
    one, and the queries of addresses, where signatures are."""
    from huggingface_hub import get_token

    token = get_token()
    if token:
        text = text.replace(token, "hf…")
    return _QUERY.sub(r"\1", without_tokens(text))


def without_tokens(text: str) -> str:
    """The text without anything that looks like a token of the Hub: what may be written or pushed."""
    return _TOKEN.sub("hf…", text)


def _answered(error: BaseException, repo: str, revision: str | None, doing: str) -> Trouble:
    """The Hub answered, with an error."""
    from huggingface_hub import constants
    from huggingface_hub import errors as hf

    assert isinstance(error, hf.HfHubHTTPError)
    status, said = error.response.status_code, line(error)
    if isinstance(error, hf.GatedRepoError):
        page = f"{constants.ENDPOINT}/{repo}"
        return Trouble(
            f"{repo} is gated", f"ask for access at {page}, then run `hf auth login`", "gated", status
        )
    refused = Trouble(
        "the Hub does not accept the token",
        "run `hf auth login`, or set HF_TOKEN to a valid token",
        "token",
        status,
    )
    if isinstance(error, hf.RepositoryNotFoundError):
        # for a valid token it is 404, whether the repository is missing or somebody else's
        if status == 401 and "authorization" in error.response.request.headers:
            return refused
        check = "check the spelling" if "/" in repo else f"give its owner too, as in you/{repo}"
        return Trouble(
            f"no repository {repo} on the Hub, and no such folder",
            f"{check}; for a private one run `hf auth login`",
            "missing",
            status,
        )
    if isinstance(error, hf.RevisionNotFoundError):
        hint = "give a branch, a tag or a full commit"
        return Trouble(f"{repo} has no revision {revision or 'main'!r}", hint, "revision", status)
    if isinstance(error, hf.EntryNotFoundError):
        return Trouble(f"{repo} has no file that is needed: {said}", "", "file", status)
    if status == 401:
        return refused
    if status in (402, 507) or (status in (403, 413) and any(word in said.lower() for word in _FULL)):
        hint = "make room at the Hub, push with --public, or choose another owner"
        return Trouble(f"the storage of {repo} is full: {said}", hint, "quota", status)
    if status == 403:
        hint = "use a token with the right to write there, or open a pull request with --pr"
        return Trouble(f"no right to {doing} {repo}: {said}", hint, "rights", status)
    if status == 412:
        hint = "look at what has changed, then run the same command again"
        return Trouble(f"{repo} has changed meanwhile", hint, "race", status)
    if status == 429:
        return Trouble(
            "the Hub asks for fewer requests (429)", f"wait a minute, then {AGAIN}", "busy", status
        )
    if status >= 500:
        again = "run the same command again" if doing in ("download", "read") else AGAIN
        hint = f"this is a problem at the Hub; {again}"
        return Trouble(f"cannot {doing} {repo}: {said}", hint, "server", status)
    return Trouble(f"the Hub refused to {doing} {repo} (error {status}): {said}", "", "refused", status)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what caused it."""
    seen: set[BaseException] = set()
    current: BaseException | None = error
    while current is not None and current not in seen:
        seen.add(current)
        yield current
        current = current.__cause__


def _cold(error: BaseException, offline: bool) -> bool:
    from huggingface_hub.errors import LocalEntryNotFoundError

    return offline and isinstance(error, LocalEntryNotFoundError)


def _is_xet(error: BaseException) -> bool:
    """Xet reports a network that fails as RuntimeError, too."""
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(word in text for word in ("network", "connect", "request"))
