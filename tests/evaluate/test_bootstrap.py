"""Bootstrap intervals: what they hold, that they are seeded, and that facts are drawn, not prompts."""

from __future__ import annotations

import numpy as np
import pytest

from hubedit.evaluate.bootstrap import harmonic_interval, intervals, mean, percentiles, resampled, wilson


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


def test_the_size_of_a_step_changes_nothing() -> None:
    groups = {"x": [[float(i)] for i in range(10)]}
    whole = resampled(groups)["x"]
    assert np.array_equal(resampled(groups, at_once=70)["x"], whole)


def test_one_fact_has_no_interval_and_no_value_none() -> None:
    assert intervals({"x": [[1.0, 0.0], []], "y": [[1.0], [0.0]]}).keys() == {"y"}
    assert intervals({}) == {}
    assert mean([[], []]) is None
    assert percentiles(np.array([np.nan])) is None


def test_a_draw_without_a_value_does_not_count() -> None:
    low, high = intervals({"x": [[1.0], [1.0], *[[]] * 20]})["x"]
    assert (low, high) == (1.0, 1.0)


def test_wilsons_interval_is_the_published_one() -> None:
    # Newcombe 1998, Statistics in Medicine 17, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(15 / 148, 148) == pytest.approx((0.0624, 0.1605), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0, 0.1611), abs=1e-4)
    assert wilson(1 / 29, 29) == pytest.approx((0.0061, 0.1718), abs=1e-4)


def test_a_share_that_all_facts_agree_on_has_an_interval_with_width() -> None:
    groups = {"all": [[1.0, 1.0]] * 30 + [[]] * 5, "none": [[0.0]] * 35, "one": [[1.0, 1.0]] + [[]] * 34}
    found = intervals(groups, shares=groups)
    # facts count, not prompts, and only those that have one
    assert found["all"] == (wilson(1, 30)[0], 1.0) and found["all"][0] == pytest.approx(0.8865, abs=1e-4)
    assert found["none"] == (0.0, wilson(0, 35)[1])
    assert found["one"] == (wilson(1, 1)[0], 1.0)
    # a plain number that happens to be 1 is no share
    assert intervals({"x": [[1.0]] * 30})["x"] == (1.0, 1.0)


def test_other_shares_keep_their_bootstrap() -> None:
    groups = {"x": [[1.0]] * 9 + [[0.0]]}
    assert intervals(groups, shares=groups) == intervals(groups)


def test_the_interval_of_a_harmonic_mean() -> None:
    some, right, wrong = [[1.0]] * 6 + [[0.0]] * 4, [[1.0]] * 10, [[0.0]] * 10
    half = [[1.0, 0.0]] * 10
    low, high = harmonic_interval({"x": some, "y": half}) or (0, 0)
    ends = intervals({"x": some})["x"]
    assert (low, high) == pytest.approx(tuple(2 / (2 + 1 / end) for end in ends))
    # what resampling cannot move counts with its own ends
    least = wilson(1, 10)[0]
    low, high = harmonic_interval({"x": some, "y": right}) or (0, 0)
    assert low == pytest.approx(2 / (1 / least + 1 / ends[0]))
    assert high == pytest.approx(2 / (1 + 1 / ends[1]))
    assert harmonic_interval({"x": right, "y": right}) == pytest.approx((least, 1))
    low, high = harmonic_interval({"x": right, "y": wrong}) or (1, 1)
    assert low == 0 and high == pytest.approx(2 / (1 + 1 / wilson(0, 10)[1]))
    assert harmonic_interval({"x": right, "y": [[1.0, 0.0], *[[]] * 9]}) is None
    assert harmonic_interval({}) is None


def test_metrics_over_different_facts_are_refused() -> None:
    with pytest.raises(ValueError, match="different numbers"):
        resampled({"x": [[1.0]], "y": [[1.0], [0.0]]})
