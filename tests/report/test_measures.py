"""What was measured is there with its unit, n and interval; what was not is absent, never zero."""

from __future__ import annotations

import math
from typing import Any

from hubedit.report.measures import Measure, measures, variant
from hubedit.report.tables import tables
from tests.report.examples import full_report, report


def by_key(data: dict[str, Any]) -> dict[str, Measure]:
    return {f"{m.group}:{m.key}": m for m in measures(data)}


def test_nothing_measured_gives_nothing() -> None:
    assert measures({}) == () and tables({}) == ()
    empty: dict[str, Any] = {
        "metrics": {},
        "harmonic_mean": None,
        "kl": {},
        "tasks": {"x": {"acc": {}}},
        "facts": [],
    }
    assert measures(empty) == ()


def test_what_is_no_number_was_not_measured() -> None:
    data = {"metrics": {"success": None, "locality": math.nan}, "perplexity_after": math.inf}
    assert measures(data) == ()


def test_every_part_of_a_report_is_found() -> None:
    found = by_key(full_report())
    assert found["answers:success"].text("after") == "100.0 % (90.0 to 100.0)"
    assert found["answers:success"].text("before") == "0.0 % (0.0 to 10.0)"
    assert found["answers:success"].n == 2
    assert found["answers:locality"].text("before") == ""
    assert found["text:perplexity"].text("after") == "10.5"
    assert found["text:kl"].text("after") == "0.0123 (0.01 to 0.02)"
    assert found["text:kl"].n == 4096
    assert found["text:fluency"].text("after") == "5.8 (5.7 to 5.9)"
    assert found["teacher-forced:portability/Reasoning"].text("after") == "50.0 % (40.0 to 60.0)"
    assert found["teacher-forced:portability/Reasoning"].n == 4
    assert found["counterfact:efficacy_magnitude"].text("after") == "0.500"
    assert found["counterfact:score"].text("after") == "90.0 %"
    assert found["tasks:gsm8k/exact_match,strict-match"].text("after") == "0.405 ± 0.013"
    assert found["tasks:mine/acc"].before is None


def test_exact_match_stands_in_a_table_of_its_own() -> None:
    table = {
        "before": {"success": 0.0},
        "after": {"success": 0.5, "portability": 0.25},
        "intervals": {"success": [0.25, 0.75]},
        "n": {"success": 8, "portability": 4},
    }
    made = report(exact_match=table)
    assert by_key(made)["exact:success"].text("after") == "50.0 % (25.0 to 75.0)"
    assert by_key(made)["exact:portability"].n == 4
    exact = next(each for each in tables(made) if "exact" in each.note or "nothing else" in each.title)
    assert exact.rows[0] == ("The prompt", "0.0 %", "50.0 % (25.0 to 75.0)", "8")


def test_columns_in_which_nothing_stands_are_left_out() -> None:
    (answers,) = tables({"metrics": {"success": 0.5}})
    assert answers.columns == ("Measure", "After")
    (answers,) = tables({"metrics": {"success": 0.5}, "counts": {"success": 4}})
    assert answers.columns == ("Measure", "After", "n")


def test_intervals_are_explained_where_they_are() -> None:
    with_them, without = tables(full_report())[0], tables(report())[0]
    assert "95 %" in with_them.note and "95 %" not in without.note


def test_the_adapter_and_the_merged_model_stand_side_by_side() -> None:
    merged = {"metrics": {"success": 0.5}, "perplexity_after": 11.0}
    data = report(variants={"adapter": report(), "merged": merged}, perplexity_after=10.5, notes=["n"])
    answers, text = tables(data)
    assert answers.columns == ("Measure", "Before", "After, adapter", "After, merged", "n")
    rows = {row[0].partition(":")[0]: row for row in answers.rows}
    assert rows["Success"][2:4] == ("100.0 %", "50.0 %")
    assert rows["Locality"][2:4] == ("87.5 %", "")
    assert text.rows == (("Perplexity", "10.5", "11"),)
    # what only the adapter was asked is not said of the merged model
    assert variant(data, "merged") == {**merged, "notes": ["n"]}
    assert variant(report(variants={"adapter": {}}), "merged") == {}
    assert variant(report(), "merged") == report()


def test_a_model_that_was_not_edited_has_only_values_before() -> None:
    (answers,) = tables({"metrics_before": {"success": 0.25}, "counts": {"success": 4}})
    assert answers.columns == ("Measure", "Before", "n")
    assert answers.rows[0][1:] == ("25.0 %", "4")


def test_in_context_is_a_column_between_before_and_after() -> None:
    told = {"metrics": {"success": 0.85}, "harmonic_mean": 0.5, "intervals": {"success": [0.7, 1.0]}}
    score = {"before": {"score": 0.1}, "after": {"score": 0.9}, "in_context": {"score": 0.6}}
    (answers, published) = tables(report(in_context=told, counterfact=score))
    assert answers.columns == ("Measure", "Before", "In context", "After", "n")
    rows = {row[0].partition(":")[0]: row for row in answers.rows}
    assert rows["Success"][2] == "85.0 % (70.0 to 100.0)"
    assert rows["Harmonic mean"][2] == "50.0 %"
    assert published.rows[0][1:4] == ("10.0 %", "60.0 %", "90.0 %")


def test_bystanders_and_real_text_are_found() -> None:
    real = {"perplexity_before": 8.0, "perplexity_after": 10.0, "perplexity_ratio": 1.25}
    kept = {"before": 1.0, "after": 0.95, "n": 80, "interval": [0.9, 0.99]}
    found = by_key(report(bystanders=kept, real_text=real))
    assert found["answers:bystanders"].text("after") == "95.0 % (90.0 to 99.0)"
    assert found["answers:bystanders"].n == 80
    assert found["text:real_perplexity"].text("before") == "8"
    assert found["text:real_perplexity_ratio"].text("after") == "1.250"
