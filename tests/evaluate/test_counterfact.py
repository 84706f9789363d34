"""CounterFact's scores and magnitudes on probabilities given by hand."""

from __future__ import annotations

from math import log

import numpy as np
import pytest

from hubedit.evaluate.bootstrap import mean
from hubedit.evaluate.counterfact import counterfact, harmonic
from hubedit.evaluate.forced import Forced
from hubedit.evaluate.reading import Reading, answers_of, neighbours
from hubedit.facts import Fact, Probe


def likely(probability: float) -> Forced:
    """A prediction whose answer has this geometric mean probability."""
    return Forced((1, 2), (1, 2), log(probability))


FIRST = Fact(
    "The mother tongue of Danielle Darrieux is",
    "Danielle Darrieux",
    "English",
    ground_truth=("French", "Français"),
    rephrase=("Danielle Darrieux spoke", "Danielle Darrieux, a native"),
    locality=(
        Probe("Michel Rocard is a native speaker of", ("French",), "neighborhood"),
        Probe("The mother tongue of Montesquieu is", ("French",), "neighborhood"),
        Probe("J. R. R. Tolkien spoke", ("English",), "attribute"),
        Probe("Danielle Darrieux was born in", ("Bordeaux",), "same_subject"),
        Probe("Nobody spoke", (), "neighborhood"),
    ),
)
SECOND = Fact("The capital of Peru is", "Peru", "Cusco", ground_truth=("Lima",))
NO_OLD_ANSWER = Fact("The capital of Chad is", "Chad", "Oslo")

FOUND = {
    (FIRST.prompt, "English"): likely(0.6),
    (FIRST.prompt, "French"): likely(0.2),
    ("Danielle Darrieux spoke", "English"): likely(0.3),
    ("Danielle Darrieux spoke", "French"): likely(0.4),
    ("Danielle Darrieux, a native", "English"): likely(0.5),
    ("Danielle Darrieux, a native", "French"): likely(0.1),
    ("Michel Rocard is a native speaker of", "English"): likely(0.1),
    ("Michel Rocard is a native speaker of", "French"): likely(0.7),
    ("The mother tongue of Montesquieu is", "English"): likely(0.5),
    ("The mother tongue of Montesquieu is", "French"): likely(0.3),
    (SECOND.prompt, "Cusco"): likely(0.1),
    (SECOND.prompt, "Lima"): likely(0.8),
}


def test_every_metric_by_hand() -> None:
    values = counterfact([FIRST, SECOND, NO_OLD_ANSWER], Reading({}, FOUND))
    one = {name: [v[0] if v else None for v in groups] for name, groups in values.items()}
    assert one == {
        "efficacy_score": [1.0, 0.0, None],
        "efficacy_magnitude": [pytest.approx(0.4), pytest.approx(-0.7), None],
        "paraphrase_score": [0.5, None, None],
        "paraphrase_magnitude": [pytest.approx((-0.1 + 0.4) / 2), None, None],
        "neighbourhood_score": [0.5, None, None],
        "neighbourhood_magnitude": [pytest.approx((0.6 - 0.2) / 2), None, None],
    }
    means = {name: np.array([mean(groups)]) for name, groups in values.items()}
    score = harmonic(means)
    assert score is not None
    # 0.5, 0.5 and 0.5
    assert score.tolist() == pytest.approx([0.5])


def test_only_neighbours_with_an_answer_of_their_own_count() -> None:
    assert [probe.prompt for probe in neighbours(FIRST)] == [
        "Michel Rocard is a native speaker of",
        "The mother tongue of Montesquieu is",
    ]


def test_the_first_old_answer_is_compared_with() -> None:
    pairs = {pair for fact in (FIRST, SECOND) for pair in answers_of(fact)}
    assert set(FOUND) <= pairs and (FIRST.prompt, "Français") not in pairs
    assert answers_of(NO_OLD_ANSWER) == [(NO_OLD_ANSWER.prompt, "Oslo")]


def test_a_tie_is_no_success() -> None:
    fact = Fact("a Ada", "Ada", "x", ground_truth=("y",))
    same = {("a Ada", "x"): likely(0.2), ("a Ada", "y"): likely(0.2)}
    assert counterfact([fact], Reading({}, same))["efficacy_score"] == [[0.0]]


def test_the_score_is_the_harmonic_mean_of_three() -> None:
    three = {
        "efficacy_score": np.array([1.0, 0.9, 0.0, np.nan]),
        "paraphrase_score": np.array([0.5, 0.6, 1.0, 1.0]),
        "neighbourhood_score": np.array([0.25, 0.9, 1.0, 1.0]),
    }
    score = harmonic(three)
    assert score is not None
    assert score[:3].tolist() == pytest.approx([3 / (1 + 2 + 4), 3 / (1 / 0.9 + 1 / 0.6 + 1 / 0.9), 0])
    assert np.isnan(score[3])
    del three["paraphrase_score"]
    assert harmonic(three) is None
