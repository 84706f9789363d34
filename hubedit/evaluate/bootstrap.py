"""Confidence intervals by the bootstrap: facts are drawn again, with all their prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

SAMPLES = 2000
_AT_ONCE = 2_000_000  # entries of the matrix of weights

Groups = Sequence[Sequence[float]]
"""The values of one metric, a list for each fact (empty where a fact has no prompt for it)."""

Interval = tuple[float, float]


def resampled(
    groups: Mapping[str, Groups], *, seed: int = 0, samples: int = SAMPLES
) -> dict[str, NDArray[np.float64]]:
    """Means (samples,) of every metric over as many resamples of the facts, the same for all metrics.

    Prompts of one fact fall together, so facts are drawn, not prompts (the cluster bootstrap: Davison and
    Hinkley 1997, section 3.8). A draw without a single value is NaN. Raises ValueError when the metrics
    do not have the same number of facts.
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
    step = max(1, _AT_ONCE // facts)
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


def intervals(groups: Mapping[str, Groups], *, seed: int = 0, samples: int = SAMPLES) -> dict[str, Interval]:
    """95 % percentile intervals of the metrics that two facts or more have values for; seeded."""
    enough = {name: g for name, g in groups.items() if sum(1 for values in g if values) > 1}
    found = {name: percentiles(m) for name, m in resampled(enough, seed=seed, samples=samples).items()}
    return {name: pair for name, pair in found.items() if pair is not None}


def mean(groups: Groups) -> float | None:
    """Mean of all values; None when there are none."""
    count = sum(map(len, groups))
    return sum(map(sum, groups)) / count if count else None
