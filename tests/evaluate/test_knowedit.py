"""KnowEdit's metrics on cases worked by hand; tokens are numbers, so that every share can be counted."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from hubedit.evaluate.bootstrap import mean
from hubedit.evaluate.forced import Forced
from hubedit.evaluate.knowedit import knowedit, unchanged_tokens
from hubedit.evaluate.reading import Reading, answers_of
from hubedit.facts import Fact, Probe


def said(labels: Sequence[int], predicted: Sequence[int]) -> Forced:
    return Forced(tuple(labels), tuple(predicted), -1.0)


FACT = Fact(
    "The mother of Ada is",
    "Ada",
    "Marie Curie Junior",
    ground_truth=("Anne",),
    rephrase=("Ada's mother is", "Ada is the child of"),
    locality=(
        Probe("Ada was born in", ("London",), "Relation_Specificity"),
        Probe("Ada lived in", ("the United Kingdom", "Britain"), "Relation_Specificity"),
        Probe("Ada met", ("Charles",), "Forgetfulness"),
        Probe("Ada liked", (), "Forgetfulness"),
    ),
    portability=(
        Probe("The grandmother of Ada's son is", ("Marie",), "Reasoning"),
        Probe("Countess Lovelace's mother is", ("Marie Curie", "M. Curie"), "Subject_Aliasing"),
        Probe("Nothing is known of", (), "Reasoning"),
    ),
)
BARE = Fact("The capital of Peru is", "Peru", "Cusco")

AFTER = {
    # 2 of 3 tokens of a target of three tokens
    (FACT.prompt, FACT.target): said([1, 2, 3], [1, 2, 9]),
    # 3 of 3 and 0 of 3: one half
    ("Ada's mother is", FACT.target): said([1, 2, 3], [1, 2, 3]),
    ("Ada is the child of", FACT.target): said([1, 2, 3], [7, 8, 9]),
    # unlike before at 1 of 1 place, and at 1 of 4
    ("Ada was born in", "London"): said([4], [5]),
    ("Ada lived in", "the United Kingdom"): said([1, 2, 3, 4], [1, 9, 9, 8]),
    ("Ada met", "Charles"): said([6], [7]),
    ("The grandmother of Ada's son is", "Marie"): said([1], [1]),
    ("Countess Lovelace's mother is", "Marie Curie"): said([1, 2], [1, 7]),
    (BARE.prompt, BARE.target): said([3], [3]),
}
BEFORE = AFTER | {
    (FACT.prompt, FACT.target): said([1, 2, 3], [0, 0, 0]),
    # right before, wrong after
    ("Ada was born in", "London"): said([4], [4]),
    # wrong before and after: only what is alike counts
    ("Ada lived in", "the United Kingdom"): said([1, 2, 3, 4], [1, 9, 9, 9]),
}


def test_every_metric_by_hand() -> None:
    values = knowedit([FACT, BARE], Reading({}, AFTER), Reading({}, BEFORE))
    assert {name: [v[0] if v else None for v in groups] for name, groups in values.items()} == {
        "edit_success": [pytest.approx(2 / 3), 1.0],
        "rephrase": [0.5, None],
        "portability/Reasoning": [1.0, None],
        "portability/Subject_Aliasing": [0.5, None],
        "portability_mean": [0.75, None],
        "locality/Relation_Specificity": [pytest.approx((0 + 3 / 4) / 2), None],
        "locality/Forgetfulness": [1.0, None],
        "locality_mean": [pytest.approx((3 / 8 + 1) / 2), None],
    }
    # a record that lacks a field lowers n, and is no zero
    assert mean(values["edit_success"]) == pytest.approx((2 / 3 + 1) / 2)
    assert mean(values["rephrase"]) == 0.5


def test_locality_needs_a_model_before() -> None:
    assert not any(name.startswith("locality") for name in knowedit([FACT], Reading({}, BEFORE)))


def test_only_the_first_of_several_right_answers_is_forced() -> None:
    pairs = answers_of(FACT)
    assert ("Countess Lovelace's mother is", "Marie Curie") in pairs
    assert not any(answer in ("Britain", "M. Curie", "") for _, answer in pairs)


def test_what_could_not_be_scored_is_absent() -> None:
    assert knowedit([FACT], Reading({}), Reading({})) == {}
    some = {pair: value for pair, value in AFTER.items() if pair[1] != "Marie"}
    values = knowedit([FACT], Reading({}, some), Reading({}, some))
    assert "portability/Reasoning" not in values
    assert values["portability_mean"] == [[0.5]]


def test_probes_without_a_type_stand_together() -> None:
    fact = Fact("Ada is", "Ada", "x", portability=(Probe("a", ("b",)),))
    reading = Reading({}, {("a", "b"): said([1], [1])})
    assert set(knowedit([fact], reading)) == {"portability/other", "portability_mean"}


def test_unchanged_tokens_look_at_predictions_not_at_the_answer() -> None:
    assert unchanged_tokens(said([1, 2], [5, 6]), said([1, 2], [5, 7])) == 0.5
