"""What must not leave this machine: its paths, and with --no-facts every word of a fact."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hubedit.errors import HubError
from hubedit.facts import Fact
from hubedit.patch.value import silent
from hubedit.remote import without_tokens
from hubedit.report.markup import last

# a whole value that is a path out of the current folder; a repository's name is none
_PATH = re.compile(r"(file:)?([/~]|\.{1,2}[/\\]|[A-Za-z]:[\\/]|\\\\)[^\n]*")
_WORD = re.compile(r"[\w.:@/-]{1,80}")
_SHORT = 8
# strings of report.json that say how it was measured, never what
_ALLOWED = frozenset({"schema", "schema_version", "version", "dtype", "device", "date", "commit", "sha256"})
# options whose values say how a patch was made; the others' may be names that somebody chose
_HOW = frozenset(
    "--method --prefer --layers --alpha --lam --rank --batch-size --null-space --tokens --seed --device "
    "--dtype --max-memory --format --on-conflict --chat".split()
)
_MODEL = ("--model", "-m")
_PATCH = ("--out", "-o", "--on")


def without_paths(value: Any) -> Any:
    """JSON data in which every string that is a local path is cut to its last part, and none is a token."""
    if isinstance(value, Mapping):
        return {without_paths(key): without_paths(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_paths(item) for item in value]
    if not isinstance(value, str):
        return value
    option, equals, rest = value.partition("=") if value.startswith("--") else ("", "", value)
    return f"{option}{equals}{last(rest)}" if _PATH.fullmatch(rest) and last(rest) else without_tokens(value)


def nameless(record: Mapping[str, Any]) -> dict[str, Any]:
    """A patch's hubedit.json without the names of files and folders, which often say what was edited: those
    of its command line become `facts.jsonl`, `patch`, or the option in capitals."""
    record, command = silent(record), record.get("command")
    if not isinstance(command, list):
        return dict(record)
    base = str((record.get("base") or {}).get("ref") or "MODEL")
    words, option = [str(word) for word in command[:2]], ""
    for word in map(str, command[2:]):
        if word.startswith("--") and "=" in word:
            name, _, value = word.partition("=")
            words.append(f"{name}={_unnamed(name, value, base)}")
            option = ""
        elif re.fullmatch(r"-[A-Za-z]|--[a-z][a-z-]*", word):
            words.append(word)
            option = word
        else:
            words.append(_unnamed(option, word, base))
            option = ""
    return {**record, "command": words}


def numbers_only(report: Mapping[str, Any]) -> dict[str, Any]:
    """report.json without any text of a fact, a prompt or an answer: its numbers stay, under their names."""
    kept = _numbers(report)
    return kept if isinstance(kept, dict) else {}


def check_silent(path: str, text: str, facts: Iterable[Fact]) -> None:
    """Raises HubError where a file that shall not tell the facts does so."""
    found = text.casefold()
    for fact in facts:
        probes = [probe.prompt for probe in (*fact.locality, *fact.portability)]
        for words in (fact.prompt, fact.question, *fact.rephrase, *probes):
            forms = {words.strip().casefold(), json.dumps(words.strip())[1:-1].casefold()}
            if any(len(form) >= _SHORT and form in found for form in forms):
                raise HubError(
                    f"{path} holds the text of a fact, and --no-facts was given",
                    f"take the text out of {path}, or remove the file",
                )


def _unnamed(option: str, value: str, base: str) -> str:
    """A value of the command line, or what stands for it. `option`: that it follows, "" for none."""
    if option in _HOW:
        return value
    if option in _MODEL:
        return value if value.partition("@")[0] == base else base
    if option in _PATCH:
        return "patch"
    # behind an option without a value an argument follows: it is no better known
    return option.lstrip("-").upper() if option else "facts.jsonl"


def _numbers(value: Any, key: str = "") -> Any:
    """The value without its texts; None where nothing is left."""
    if isinstance(value, Mapping):
        kept = {name: _numbers(item, name) for name, item in value.items() if _WORD.fullmatch(str(name))}
        return {name: item for name, item in kept.items() if item is not None}
    if isinstance(value, Sequence) and not isinstance(value, str):
        items = [_numbers(item, key) for item in value]
        return items if any(item is not None and item != {} for item in items) else None
    if isinstance(value, str):
        return value if key in _ALLOWED and _WORD.fullmatch(value) else None
    return value
