"""A time budget as people write it."""

from __future__ import annotations

import re

from hubedit.errors import ConfigError

_PARTS = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")


def parse_budget(text: str) -> float:
    """Seconds of "30m", "2h", "90s" or "1h30m". Raises ConfigError for anything else."""
    found = _PARTS.fullmatch(text.strip().lower().replace(" ", ""))
    if found is None or not any(found.groups()):
        raise ConfigError(f"cannot read the budget {text!r}", "write 30m, 2h, 90s or 1h30m")
    hours, minutes, seconds = (float(part or 0) for part in found.groups())
    total = 3600 * hours + 60 * minutes + seconds
    if total <= 0:
        raise ConfigError(
            f"a budget of {text!r} leaves no time for a trial", "give some minutes, such as 30m"
        )
    return total
