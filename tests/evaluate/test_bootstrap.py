"""Bootstrap intervals: what they hold, that they are seeded, and that facts are drawn, not prompts."""

from __future__ import annotations

import numpy as np
import pytest

from hubedit.evaluate import bootstrap
from hubedit.evaluate.bootstrap import intervals, mean, percentiles, resampled


def test_the_interval_of_a_share_is_the_binomial_one() -> None:
    groups = [[1.0]] * 60 + [[0.0]] * 40
    low, high = intervals({"success": groups})["success"]
    # 0.6 -+ 1.96 sqrt(0.6 * 0.4 / 100)
    assert (low, high) == pytest.approx((0.504, 0.696), abs=0.015)


def test_facts_are_drawn_with_all_their_prompts() -> None:
    # ten facts of ten prompts that agree are ten observations, not a hundred
    together = [[1.0] * 10] * 5 + [[0.0] * 10] * 5
    apart = [[1.0]] * 50 + [[0.0]] * 50
    wide, narrow = intervals({"x": together})["x"], intervals({"x": apart})["x"]
    assert wide[1] - wide[0] > 2.5 * (narrow[1] - narrow[0])


def test_a_fact_counts_by_its_prompts() -> None:
    groups = [[1.0, 1.0, 1.0], [0.0]]
    assert mean(groups) == 0.75
    # two facts: both the first, one each, both the second
    assert set(np.round(resampled({"x": groups})["x"], 9)) == {1.0, 0.75, 0.0}


def test_seeded_and_independent_of_other_metrics() -> None:
    x, y = [[float(i % 3 == 0)] for i in range(30)], [[float(i)] for i in range(30)]
    assert intervals({"x": x}) == intervals({"x": x})
    assert intervals({"x": x, "y": y})["x"] == intervals({"x": x})["x"]
    assert not np.array_equal(resampled({"x": x})["x"], resampled({"x": x}, seed=1)["x"])


def test_the_size_of_a_step_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = {"x": [[float(i)] for i in range(10)]}
    whole = resampled(groups)["x"]
    monkeypatch.setattr(bootstrap, "_AT_ONCE", 70)
    assert np.array_equal(resampled(groups)["x"], whole)


def test_one_fact_has_no_interval_and_no_value_none() -> None:
    assert intervals({"x": [[1.0, 0.0], []], "y": [[1.0], [0.0]]}).keys() == {"y"}
    assert intervals({}) == {}
    assert mean([[], []]) is None
    assert percentiles(np.array([np.nan])) is None


def test_a_draw_without_a_value_does_not_count() -> None:
    low, high = intervals({"x": [[1.0], [1.0], *[[]] * 20]})["x"]
    assert (low, high) == (1.0, 1.0)


def test_metrics_over_different_facts_are_refused() -> None:
    with pytest.raises(ValueError, match="different numbers"):
        resampled({"x": [[1.0]], "y": [[1.0], [0.0]]})
