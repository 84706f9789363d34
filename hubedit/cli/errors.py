"""The one place that turns an exception into a line on stderr and an exit code."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable

from hubedit.cli.escape import escaped, one_line
from hubedit.errors import HubEditError

INTERRUPTED = 130

# The class of an exception from a library, anywhere in its bases, and what to tell the user. By name, so
# that an error message never has to import torch. The first row that matches wins.
_KNOWN: tuple[tuple[str, str, str], ...] = (
    (
        "huggingface_hub.errors.GatedRepoError",
        "the model's owner must grant access first",
        "ask for it on the model's page, then run: hf auth login",
    ),
    (
        "huggingface_hub.errors.RevisionNotFoundError",
        "the repository has no such revision",
        "check what stands after the @: a branch, a tag or a commit",
    ),
    (
        "huggingface_hub.errors.RepositoryNotFoundError",
        "no such repository on the Hub, or it is private",
        "check the name; for a private one run: hf auth login",
    ),
    (
        "huggingface_hub.errors.HFValidationError",
        "this is neither a folder nor the name of a Hub repository",
        "give a path that exists, or owner/name[@revision]",
    ),
    (
        "huggingface_hub.errors.OfflineModeIsEnabled",
        "the Hub is needed, but offline mode is on",
        "unset HF_HUB_OFFLINE, or give a local folder",
    ),
    (
        "huggingface_hub.errors.LocalEntryNotFoundError",
        "the file is not in the local cache and the Hub cannot be reached",
        "check the network connection, or give a local folder",
    ),
    (
        "huggingface_hub.errors.EntryNotFoundError",
        "the repository lacks a file that is needed",
        "check that it is a model in safetensors format",
    ),
    (
        "huggingface_hub.errors.HfHubHTTPError",
        "the Hub answered with an error",
        "run the same command again; finished stages are kept",
    ),
    (
        "torch.OutOfMemoryError",
        "the device has too little memory",
        "use a smaller batch, --dtype bfloat16 or --device cpu",
    ),
    (
        "torch.cuda.OutOfMemoryError",
        "the device has too little memory",
        "use a smaller batch, --dtype bfloat16 or --device cpu",
    ),
    ("builtins.MemoryError", "this machine has too little memory", "use a smaller model or batch"),
    (
        "builtins.ConnectionError",
        "the connection failed",
        "check the network, then run the same command again; finished stages are kept",
    ),
    (
        "httpx.TransportError",
        "the connection failed",
        "check the network, then run the same command again; finished stages are kept",
    ),
    (
        "httpx2.TransportError",
        "the connection failed",
        "check the network, then run the same command again; finished stages are kept",
    ),
)

_OS: dict[int, tuple[str, str]] = {
    errno.ENOSPC: (
        "the disk is full",
        "make room, then run the same command again; finished stages are kept",
    ),
    errno.EDQUOT: ("the disk quota is used up", "make room, then run the same command again"),
    errno.EACCES: ("permission denied", "choose a place you may write to"),
    errno.EPERM: ("permission denied", "choose a place you may write to"),
    errno.EROFS: ("this file system is read-only", "choose another place"),
    errno.ENOENT: ("no such file or folder", "check the path"),
    errno.EISDIR: ("this is a folder, not a file", "check the path"),
    errno.ENOTDIR: ("this is a file, not a folder", "check the path"),
    errno.EMFILE: ("too many open files", "raise the limit: ulimit -n 4096"),
}


def explain(error: BaseException) -> tuple[str, str, int]:
    """(message, hint, exit code) of an error; the message is one line, the hint may be empty."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", "run the same command again; finished stages are kept", INTERRUPTED
    if isinstance(error, HubEditError):
        return error.message, error.hint, error.exit_code
    names = [f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__]
    for name, message, hint in _KNOWN:
        if name in names:
            return _with_detail(message, error), hint, 1
    if isinstance(error, OSError) and error.errno in _OS:
        message, hint = _OS[error.errno]
        return f"{message}: {error.filename}" if error.filename else message, hint, 1
    detail = _first_line(error)
    kind = type(error).__name__
    return f"internal error: {kind}{': ' if detail else ''}{detail}", "run with --debug for the traceback", 1


def report(error: BaseException, *, debug: bool = False, write: Callable[[str], object] | None = None) -> int:
    """Prints an error to stderr (or through `write`) and returns the exit code."""
    say = write if write is not None else sys.stderr.write
    if isinstance(error, BrokenPipeError):
        # the reader of our output (head, less) has gone; Python must not complain while it exits
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    if debug:
        say(escaped("".join(traceback.format_exception(error))))
    message, hint, code = explain(error)
    if code == INTERRUPTED:
        say(f"\n{message}; {hint}\n")
        return code
    say(f"error: {one_line(message)}\n")
    for problem in error.problems if isinstance(error, HubEditError) else ():
        if problem not in message:
            say(f"  {one_line(problem)}\n")
    if hint:
        say(f"hint: {one_line(hint)}\n")
    return code


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else ""


def _with_detail(message: str, error: BaseException) -> str:
    detail = _first_line(error)
    if not detail or len(detail) > 160:
        return message
    return f"{message}: {detail}"
