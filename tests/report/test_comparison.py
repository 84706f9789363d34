"""Several reports in one table and one plot."""

from __future__ import annotations

import csv
import io
from typing import Any

from hubedit.report.comparison import compare
from tests.report.examples import full_report, record, report

ONE: tuple[str, dict[str, Any], dict[str, Any]] = ("one", record(), full_report())


def test_one_row_a_measure_and_one_column_a_report() -> None:
    made = compare([ONE, ("two", record(), report(4, metrics={"success": 0.5}, counts={"success": 4}))])
    rows = {row[0]: row[1:] for row in made.cells()}
    assert made.columns() == ("Measure", "one", "two")
    assert rows["Success"] == ("100.0 % (90.0 to 100.0) (n = 2)", "50.0 % (n = 4)")
    assert rows["Locality"] == ("87.5 %", "")
    assert "| Locality | 87.5 % |  |" in made.markdown()
    assert not made.remarks


def test_reports_that_cannot_be_compared_say_so() -> None:
    other = record(base={"ref": "gpt2", "commit": "b" * 40}, facts={"count": 2, "sha256": "1" * 64})
    made = compare([ONE, ("two", other, report()), ("none", {}, {"metrics_before": {"success": 0.1}})])
    assert len(made.remarks) == 3
    for remark in made.remarks:
        assert remark in made.markdown()
    assert "10.0 % (not edited)" in made.markdown()


def test_names_are_told_apart_and_cannot_break_anything() -> None:
    made = compare([("a|b", {}, report()), ("a|b", {}, report()), ("=1+1", {}, report())])
    assert made.names == ("a|b", "a|b (2)", "=1+1")
    assert r"| Measure | a\|b | a\|b (2) | =1+1 |" in made.markdown()
    rows = list(csv.DictReader(io.StringIO(made.csv())))
    assert {row["report"] for row in rows} == {"a|b", "a|b (2)", "'=1+1"}


def test_numbers_are_plain_and_empty_where_not_measured() -> None:
    made = compare([ONE, ("two", {}, report())])
    rows = [r for r in csv.DictReader(io.StringIO(made.csv())) if r["measure"] == "success"]
    assert (rows[0]["after"], rows[0]["low"], rows[0]["before"]) == ("1.0", "0.9", "0.0")
    assert (rows[1]["after"], rows[1]["low"], rows[1]["before"]) == ("1.0", "", "")
    data = made.to_json()["reports"]
    assert data["one"]["answers"]["success"] == {"n": 2, "before": 0.0, "after": 1.0, "low": 0.9, "high": 1.0}
    assert data["two"]["answers"]["success"] == {"n": 2, "after": 1.0}


def test_the_plot() -> None:
    image = compare([ONE, ("two $x$ <b>", {}, report())]).png()
    assert image is not None and image[:4] == b"\x89PNG"
    assert compare([("a", {}, {"perplexity_after": 3.0}), ("b", {}, {})]).png() is None
    assert compare([("a", {}, {}), ("b", {}, {})]).markdown().startswith("| Measure | a | b |")


def test_one_report_alone_shows_its_n_and_exact_match_its_name() -> None:
    table = {"after": {"success": 0.5}, "n": {"success": 8}}
    text = compare([("Patch 1", {}, report(exact_match=table))]).markdown()
    assert "| Success | 100.0 % (n = 2) |" in text
    assert "| exact match, The prompt | 50.0 % (n = 8) |" in text
