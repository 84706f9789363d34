"""Confidence intervals by the bootstrap: facts are drawn again, with all their prompts.

Where every value of a share is 0, or every one 1, each resample is the same, and the bootstrap would give an
interval without width. There Wilson's score interval (Wilson 1927) stands in, over the facts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import sqrt

import numpy as np
from numpy.typing import NDArray

SAMPLES = 2000

Groups = Sequence[Sequence[float]]
"""The values of one metric, a list for each fact (empty where a fact has no prompt for it)."""

Interval = tuple[float, float]


def resampled(
    groups: Mapping[str, Groups], *, seed: int = 0, samples: int = SAMPLES, at_once: int = 2_000_000
) -> dict[str, NDArray[np.float64]]:
    """Means (samples,) of every metric over as many resamples of the facts, the same for all metrics.

    Prompts of one fact fall together, so facts are drawn, not prompts (the cluster bootstrap: Davison and
    Hinkley 1997, section 3.8). A draw without a single value is NaN. Raises ValueError when the metrics
    do not have the same number of facts. `at_once`: entries of the matrix of weights.
    """
    sizes = {len(metric) for metric in groups.values()}
    if len(sizes) > 1:
        raise ValueError(f"metrics over different numbers of facts: {sorted(sizes)}")
    facts = sizes.pop() if sizes else 0
    names = list(groups)
    if not facts:
        return {name: np.full(samples, np.nan) for name in names}
    sums = np.array([[sum(values) for values in groups[name]] for name in names], dtype=np.float64).T
    counts = np.array([[len(values) for values in groups[name]] for name in names], dtype=np.float64).T
    draw = np.random.default_rng(seed)
    step = max(1, at_once // facts)
    parts = []
    for at in range(0, samples, step):
        rows = min(step, samples - at)
        picked = draw.integers(facts, size=(rows, facts)) + facts * np.arange(rows)[:, None]
        weights = np.bincount(picked.ravel(), minlength=rows * facts).reshape(rows, facts).astype(np.float64)
        total = weights @ counts
        parts.append(np.divide(weights @ sums, total, out=np.full_like(total, np.nan), where=total > 0))
    means = np.concatenate(parts)
    return {name: means[:, i] for i, name in enumerate(names)}


def percentiles(means: NDArray[np.float64], level: float = 0.95) -> Interval | None:
    """The central interval that holds a share `level` of the resampled means; None where all are NaN."""
    known = means[~np.isnan(means)]
    if not len(known):
        return None
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def intervals(
    groups: Mapping[str, Groups], *, shares: Collection[str] = (), seed: int = 0, samples: int = SAMPLES
) -> dict[str, Interval]:
    """95 % percentile intervals of the metrics that two facts or more have values for; seeded.

    `shares`: metrics whose values lie between 0 and 1. Where all of one are 0, or all 1, its interval is
    Wilson's over the facts that have a value, be it a single one.
    """
    certain = {name: pair for name in groups if name in shares and (pair := _certain(groups[name]))}
    enough = {name: g for name, g in groups.items() if sum(1 for values in g if values) > 1}
    found = {name: percentiles(m) for name, m in resampled(enough, seed=seed, samples=samples).items()}
    return {name: pair for name, pair in found.items() if pair is not None} | certain


def wilson(share: float, n: int) -> Interval:
    """Wilson's 95 % score interval of a share 0..1 of `n` independent trials."""
    z = 1.959964
    centre, spread = share + z * z / (2 * n), z * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low, high = ((centre + sign * spread) / (1 + z * z / n) for sign in (-1, 1))
    # its ends at 0 and 1 are those, but for rounding
    return (0.0 if share == 0 else low), (1.0 if share == 1 else high)


def harmonic(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """The harmonic mean over the first axis; 0 where one is 0 or less, NaN where one is NaN."""
    with np.errstate(divide="ignore"):
        mean = len(means) / (1 / means).sum(0)
    return np.asarray(np.where((means > 0).all(0), mean, np.where(np.isnan(means).any(0), np.nan, 0.0)))


def harmonic_interval(groups: Mapping[str, Groups], *, seed: int = 0) -> Interval | None:
    """95 % interval of the harmonic mean of shares, all drawn together; None without one for each.

    A share that is 0 or 1 throughout, which resampling never moves, stands at its own lower end for the
    lower end of the mean, and at its upper end for the upper: wider than need be, never too narrow.
    """
    own = intervals(groups, shares=groups, seed=seed)
    if not groups or len(own) < len(groups):
        return None
    draws = resampled(groups, seed=seed)
    fixed = {name for name in groups if _certain(groups[name])}
    ends = []
    for end in (0, 1):
        rows = [
            np.full_like(draws[name], own[name][end]) if name in fixed else draws[name] for name in groups
        ]
        pair = percentiles(harmonic(np.stack(rows)))
        if pair is None:
            return None
        ends.append(pair[end])
    return ends[0], ends[1]


def method(seed: int) -> str:
    """What the intervals of a report are, in words: for `interval_method` of report.json."""
    return (
        f"95 % percentiles of {SAMPLES:,} bootstrap resamples of the facts (of rows for unrelated text), "
        f"seed {seed}; where all values of a share are 0 % or all are 100 %, Wilson's score interval over "
        "the facts"
    )


def _certain(groups: Groups) -> Interval | None:
    """Wilson's interval where all values are 0 or all 1."""
    found = {value for values in groups for value in values}
    if found not in ({0.0}, {1.0}):
        return None
    return wilson(found.pop(), sum(1 for values in groups if values))


def mean(groups: Groups) -> float | None:
    """Mean of all values; None when there are none."""
    count = sum(map(len, groups))
    return sum(map(sum, groups)) / count if count else None
