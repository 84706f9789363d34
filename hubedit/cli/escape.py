"""Text of files, models and servers as a terminal may show it: control characters as escapes.

Everything that the command line writes, except JSON data, passes here: a prompt, an answer or a server's
message must not move the cursor, set the clipboard or turn a line around.
"""

from __future__ import annotations

import logging
import re
import warnings
from typing import Any

# C0 without tab and line feed, DEL and C1, line and paragraph separators, overrides of the writing direction,
# halves of surrogate pairs
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_BREAKS = str.maketrans({"\n": "\\n", "\t": "\\t"})


def escaped(text: str) -> str:
    """The text with `\\x1b` for ESC and so on; its line feeds and tabs stay."""
    return _UNSAFE.sub(_code, text)


def one_line(text: str) -> str:
    """`escaped`, with line feeds and tabs as escapes too."""
    return escaped(text).translate(_BREAKS)


def json_escaped(text: str) -> str:
    """JSON text of the same value, with the same characters as JSON escapes."""
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def guard_libraries() -> None:
    """Escapes the log lines and warnings of libraries too: some quote a server's header or a file's name."""
    logging.setLogRecordFactory(_Record)
    plain: Any = warnings.formatwarning

    def shown(*given: Any, **named: Any) -> str:
        return escaped(plain(*given, **named))

    warnings.formatwarning = shown


class _Record(logging.LogRecord):
    def getMessage(self) -> str:  # the name is logging's
        return escaped(super().getMessage())


def _code(found: re.Match[str]) -> str:
    point = ord(found[0])
    return f"\\x{point:02x}" if point < 0x100 else f"\\u{point:04x}"
