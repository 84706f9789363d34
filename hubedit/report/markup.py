"""Text and numbers as a card shows them. Everything from outside goes through one of these.

Facts are untrusted text: a prompt may hold Markdown, HTML, a pipe, a line's end or a backtick.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

# embeddings, overrides and isolates turn the text around them; marks and joiners belong to scripts
_TURNING = re.compile("[\u202a-\u202e\u2066-\u2069]")
_CONTROL = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ufeff]")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "$": "&#36;"}
_HUB = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
_FILE = re.compile(r"\.(jsonl?|csv|txt|md|html?|safetensors|ya?ml)$")
# a path that starts at a root, a home or a drive; not the middle of an address
_PATH = re.compile(
    r"(?<![\w:/.])(?:~|[A-Za-z]:|\.{1,2})?[/\\](?:[^\s/\\,;:'\"`()]+[/\\])*([^\s/\\,;:'\"`()]+)"
)


def line(text: object) -> str:
    """The text in one line, without characters that nobody sees but a reader obeys."""
    return " ".join(_CONTROL.sub("", _TURNING.sub("", str(text))).split())


def cell(text: object) -> str:
    """Text for a cell of a Markdown table: one line, nothing in it read as Markdown, HTML or a new column."""
    clean = line(text)
    for sign, entity in _ENTITIES.items():
        clean = clean.replace(sign, entity)
    for sign in "\\|`*_[]~":
        clean = clean.replace(sign, f"\\{sign}")
    # GitHub's Markdown makes links of bare addresses
    return re.sub(r"(?i)\bwww\.", lambda m: m[0][:-1] + "&#46;", clean.replace("://", "&#58;//"))


def code(text: object) -> str:
    """A Markdown code span. A backtick cannot be escaped in one, so it becomes an apostrophe."""
    return f"`{line(text).replace('`', chr(39)).replace('|', '¦') or ' '}`"


def fenced(text: str, language: str = "") -> str:
    """A Markdown code block whose fence no line of the text can close."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def csv_cell(value: Any) -> Any:
    """A field of a CSV file, empty for None. A spreadsheet must not take a name for a formula."""
    text = isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t")
    return "" if value is None else f"'{value}" if text else value


def quoted(text: str) -> str:
    """A Python and JSON string literal."""
    return json.dumps(line(text), ensure_ascii=False)


def clip(text: object, most: int = 240) -> str:
    """The text in one line of at most `most` characters, cut with an ellipsis."""
    whole = line(text)
    return whole if len(whole) <= most else f"{whole[: most - 1].rstrip()}…"


def plural(count: int, noun: str) -> str:
    """`1 fact`, `2,000 facts`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def number(value: Any) -> float | None:
    """`value` where it is a finite number, else None: what was not measured is never zero."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def percent(share: float) -> str:
    """A share 0..1 as `92.0 %`."""
    return f"{100 * share:.1f} %"


def is_hub(value: str) -> bool:
    """Whether the text can only be the name of a Hub repository, not a path."""
    return bool(_HUB.fullmatch(value)) and value[0] not in "./~" and not _FILE.search(value)


def last(path: str) -> str:
    """The last part of a path, whichever system wrote it."""
    parts = [part for part in re.split(r"[/\\]", path) if part not in ("", ".", "..", "~")]
    return parts[-1] if parts else ""


def without_paths(text: object) -> str:
    """The text with every local path in it cut to its last part."""
    return _PATH.sub(lambda found: found[1], line(text))
