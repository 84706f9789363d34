"""Which seeds are for choosing settings, and which for reporting what they do.

Worlds whose seeds differ modulo 61 share no invented name (`invented.Namer`), so nothing chosen on the
first can have been fitted to the second. A setting is never looked at on a reporting seed before it is
final; a reporting seed that was looked at becomes a tuning seed.
"""

from __future__ import annotations

from typing import Literal

TUNING_SEEDS = (1, 2, 3, 4, 11, 12, 13, 14, 21, 26)
REPORTING_SEEDS = (22, 23, 24, 25, 27)


def purpose(seed: int) -> Literal["tuning", "reporting"]:
    """What a seed is for. Raises ValueError for one that is in neither list."""
    if seed in TUNING_SEEDS:
        return "tuning"
    if seed in REPORTING_SEEDS:
        return "reporting"
    raise ValueError(f"seed {seed} is neither for tuning {TUNING_SEEDS} nor for reporting {REPORTING_SEEDS}")
