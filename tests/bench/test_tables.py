"""Means, intervals and tables from rows written by hand; numbers worked out by hand."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hubedit.bench.cells import Cell, cells
from hubedit.bench.configuration import Bench, parse
from hubedit.bench.metrics import Metric, text
from hubedit.bench.numbers import Number, lines, mean, outdated, quantile, settings
from hubedit.bench.plain import csv_text
from hubedit.bench.results import FILE
from hubedit.bench.tables import Table, markdown, tables
from hubedit.bench.write import write

SUCCESS = "teacher-forced/edit_success"
ZSRE = {"name": "ZsRE", "source": "zsre"}


def bench(runs: Sequence[dict[str, Any]], kinds: Sequence[str], **more: Any) -> Bench:
    models = [{"name": "Qwen2.5-7B", "ref": "org/one"}]
    return parse({"models": models, "data": [ZSRE], "runs": list(runs), "tables": list(kinds), **more})


def row(cell: Cell, metrics: dict[str, Any] | None = None, error: str = "") -> dict[str, Any]:
    head = {"key": str(cell.identity()), "cell": cell.identity(), "config": settings(cell.config)}
    if error:
        return {**head, "error": {"kind": "CollapseError", "message": error}}
    return {**head, "metrics": metrics or {}, "edit": {"alpha_mean": 0.25, "alpha_traced": 0.3}}


def after(value: float, *interval: float, before: float | None = None) -> dict[str, float]:
    entry = {"after": value}
    entry |= {"low": interval[0], "high": interval[1]} if interval else {}
    return entry | ({"before": before} if before is not None else {})


def find(made: Sequence[Table], kind: str) -> Table:
    return next(table for table in made if table.name == kind)


def test_interval_over_three_seeds_by_hand() -> None:
    # mean 0.8, deviations -0.1, 0, 0.1: s = 0.1, t(2) = 4.303, half = 4.303 * 0.1 / sqrt(3) = 0.248434
    found = mean([Number(0.7), Number(0.8), Number(0.9)])
    assert found.mean == pytest.approx(0.8) and found.n == 3
    assert found.low == pytest.approx(0.8 - 0.248434, abs=1e-6)
    assert found.high == pytest.approx(0.8 + 0.248434, abs=1e-6)
    # two seeds: s = sqrt(2) * 0.05, half = 12.706 * 0.05 = 0.6353
    two = mean([Number(0.5), Number(0.6)])
    assert (two.low, two.high) == pytest.approx((0.55 - 0.6353, 0.55 + 0.6353))
    one = Number(0.5, 0.4, 0.7)
    assert mean([one]) is one


def test_quantiles_of_student() -> None:
    assert quantile(1) == 12.706 and quantile(30) == 2.042
    assert quantile(60) == pytest.approx(2.000, abs=1e-3) and quantile(120) == pytest.approx(1.980, abs=1e-3)


def test_an_interval_ends_where_a_share_does_and_nowhere_else() -> None:
    share, free = Metric("answers/success", "Success"), Metric("tasks/x/word_perplexity", "x", share=False)
    wide = Number(0.85, -0.1, 1.8, 2)
    assert text(wide, share) == "85.00 (0.00 to 100.00)"
    assert text(wide, free) == "85.00 (-10.00 to 180.00)"


def test_alpha_sweep_with_published_numbers_beside() -> None:
    plan = bench([{"method": "intattn", "alphas": [0.2, 0, "auto"]}], ["alpha"], seeds=[0, 1])
    by = {(c.alpha, c.seed): c for c in cells(plan)}
    rows = [
        row(by["0", 0], {SUCCESS: after(0.9)}),
        row(by["0", 1], {SUCCESS: after(0.8)}),
        row(by["0.2", 0], {SUCCESS: after(0.5, 0.25, 0.75), "text/fluency": after(5.5)}),
        row(by["auto", 0], {SUCCESS: after(0.7)}),
    ]
    made = find(tables(plan, lines(plan, rows)), "alpha")
    assert made.columns == ("Metric", "0.00", "0.20", "auto: 0.25")
    # 0.85 +- 12.706 * 0.05, and no share is above 1
    assert made.rows == (
        ("Edit Success", "85.00 (21.47 to 100.00)", "50.00 (25.00 to 75.00)", "70.00"),
        ("  published (table 2)", "95.43", "97.79", ""),
        ("Fluency", "", "550.00", ""),
        ("  published (table 2)", "569.84", "574.23", ""),
    )
    assert made.notes[0] == "Qwen2.5-7B: the traced alpha is 0.30." and "arXiv 2510.27400" in made.notes[1]


def test_a_cell_without_data_is_absent_and_a_failed_one_is_told() -> None:
    plan = bench([{"method": m} for m in ("intattn", "rome", "r-rome", "memit")], ["methods"], seeds=[0, 1])
    by = {(c.method, c.seed): c for c in cells(plan)}
    rows = [
        row(by["intattn", 0], {"answers/success": after(0.0)}),
        row(by["rome", 0], error="NaN"),
        row(by["rome", 1], error="NaN"),
        row(by["r-rome", 0], {"answers/success": after(0.5)}),
        row(by["r-rome", 1], error="OOM"),
    ]
    made = find(tables(plan, lines(plan, rows)), "methods")
    assert made.columns == ("Model", "Data", "Method", "Success")
    assert [r[2:] for r in made.rows] == [("IntAttn-Edit", "0.0"), ("ROME", "failed"), ("R-ROME", "50.0")]
    assert made.notes[0] == "Qwen2.5-7B, ZsRE, ROME: 2 of 2 runs failed (CollapseError: NaN)"
    assert made.notes[1] == "Qwen2.5-7B, ZsRE, R-ROME: 1 of 2 runs failed (CollapseError: OOM)"


def test_modules_rome_and_abilities() -> None:
    runs: list[dict[str, Any]]
    runs = [{"method": "intattn", "alphas": [0, 1, "auto"]}, {"method": "rome"}, {"method": "intattn-rome"}]
    plan = bench(runs, ["modules", "rome", "abilities"])
    task = "tasks/gsm8k/exact_match,strict-match"
    rows = [
        row(
            c, {SUCCESS: after(0.5), task: after(0.25, before=0.5), "text/perplexity": after(4.0, before=3.0)}
        )
        for c in cells(plan)
    ]
    made = tables(plan, lines(plan, rows))
    modules = find(made, "modules")
    assert modules.rows[0] == ("Qwen2.5-7B", "ZsRE", "Before edit", "", "3.00")
    assert [r[2] for r in modules.rows[1:]][::2] == [
        "MLP-only (alpha 0)",
        "Attn-only (alpha 1)",
        "IntAttn-Edit (alpha auto: 0.25)",
    ]
    assert [r[3] for r in modules.rows[1:]][1::2] == ["95.43", "36.64", "96.98"]
    rome = find(made, "rome")
    assert rome.columns == ("Metric", "Before edit", "ROME", "IntAttn-Edit for ROME")
    assert rome.rows[1] == ("  published (table 4)", "", "79.06", "89.56")
    assert "The published table does not name its model." in rome.notes
    abilities = find(made, "abilities")
    assert abilities.columns[:2] == ("Metric", "Before edit")
    assert abilities.rows[0][:2] == ("gsm8k exact_match,strict-match", "50.00")
    assert abilities.rows[1][1] == "65.88" and abilities.rows[1][-2] == "60.05"
    assert abilities.rows[2][:3] == ("PPL", "3.00", "4.00")
    assert abilities.rows[3][1] == "3.06"


def test_models_of_one_name_are_replicates_and_the_last_row_of_a_cell_counts() -> None:
    models = [{"name": "lab", "ref": "/lab/one"}, {"name": "lab", "ref": "/lab/two"}]
    plan = bench([{"method": "intattn"}], ["methods"], models=models)
    one, two = cells(plan)
    other = next(iter(cells(bench([{"method": "memit"}], ["methods"]))))
    rows = [
        row(one, error="first try"),
        row(two, {SUCCESS: after(0.6)}),
        row(one, {SUCCESS: after(0.8)}),
        row(other, {SUCCESS: after(0.1)}),
    ]
    (line,) = lines(plan, rows)
    assert line.numbers[SUCCESS].mean == pytest.approx(0.7) and line.numbers[SUCCESS].n == 2
    assert not line.errors and line.replicates == 2


def test_rows_of_other_settings_are_in_no_table(tmp_path: Path) -> None:
    old, new = (bench([{"method": "memit"}], ["methods"], set={"targets.kl": kl}) for kl in (0.5, 1))
    rows = [row(cells(plan)[0], {SUCCESS: after(plan.settings["targets.kl"] / 2)}) for plan in (new, old)]
    assert [line.numbers[SUCCESS].mean for line in lines(new, rows)] == [0.5]
    assert [line.numbers[SUCCESS].mean for line in lines(old, rows)] == [0.25]
    assert outdated(new, rows) == 1
    (tmp_path / FILE).write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert write(new, tmp_path).problems == ("rows made with other settings are left out of the tables: 1",)


def test_batches_tell_how_many_edits() -> None:
    plan = bench([{"method": "memit"}], ["batches"], edits=[1, 100], batch_sizes=[0, 10])
    rows = [row(c, {"answers/success": after(c.edits / 100)}) for c in cells(plan)]
    made = find(tables(plan, lines(plan, rows)), "batches")
    assert [r[3:] for r in made.rows] == [
        ("1 edit at once", "1.0"),
        ("100 edits at once", "100.0"),
        ("100 edits in batches of 10", "100.0"),
    ]


def test_markdown_and_csv() -> None:
    plan = bench([{"method": "intattn", "label": "a|b"}, {"method": "rome", "label": "=ROME"}], ["methods"])
    first, second = cells(plan)
    found = lines(plan, [row(first, {SUCCESS: after(0.5, 0.25, 0.75, before=0.125)}), row(second, error="x")])
    text = markdown(plan, tables(plan, found))
    assert "| Qwen2.5-7B | ZsRE | a\\|b | 50.00 (25.00 to 75.00) |" in text
    assert "| =ROME | failed |" in text
    first_line, second_line = csv.DictReader(io.StringIO(csv_text(found, plan.tables)))
    assert first_line["label"] == "a|b" and first_line["metric"] == SUCCESS
    numbers = [first_line[name] for name in ("before", "mean", "low", "high", "replicates", "failed")]
    assert numbers == ["0.125", "0.5", "0.25", "0.75", "1", "0"] and first_line["published"] == "96.98"
    assert second_line["label"] == "'=ROME" and second_line["mean"] == "" and second_line["failed"] == "1"


def test_files_of_a_folder(tmp_path: Path) -> None:
    plan = bench([{"method": "intattn", "alphas": [0, 0.5, 1, "auto"]}], ["alpha"], edits=[10, 20])
    rows = [row(c, {SUCCESS: after(0.5, 0.4, 0.6), "answers/harmonic_mean": after(0.5)}) for c in cells(plan)]
    text = "".join(json.dumps(r) + "\n" for r in rows) + '{"key": "half'
    (tmp_path / FILE).write_text(text)
    written = write(plan, tmp_path)
    assert [f.name for f in written.files[:2]] == ["tables.md", "tables.csv"] and len(written.problems) == 1
    figures = sorted(f.name for f in (tmp_path / "figures").iterdir())
    assert len(figures) == 5 and "edits-qwen2.5-7b-zsre.png" in figures
    assert all(f.read_bytes().startswith(b"\x89PNG") for f in (tmp_path / "figures").iterdir())
    assert "Shares of attention" in (tmp_path / "tables.md").read_text()


def test_nothing_is_written_without_results(tmp_path: Path) -> None:
    written = write(bench([{"method": "intattn"}], ["methods"]), tmp_path)
    assert not written.tables and not list(tmp_path.iterdir())


def test_the_unedited_model_and_in_context_stand_before_the_runs() -> None:
    plan = bench([{"method": "memit"}, {"method": "rome"}], ["methods", "rome"], edits=[10, 20])
    rows = []
    for c in cells(plan):
        success = {**after(0.9, before=0.1), "in_context": c.edits / 100}
        kept = {"before": 1.0, "after": 0.95}
        rows.append(row(c, {"answers/success": success, "answers/bystanders": kept}))
    found = lines(plan, rows)
    made = tables(plan, found)
    methods = find(made, "methods")
    assert [(r[2], *r[3:6]) for r in methods.rows[:4]] == [
        ("Before edit", "10 edits at once", "10.0", "100.0"),
        ("In context", "10 edits at once", "10.0", ""),
        ("MEMIT", "10 edits at once", "90.0", "95.0"),
        ("ROME", "10 edits at once", "90.0", "95.0"),
    ]
    assert methods.rows[5][2:5] == ("In context", "20 edits at once", "20.0")
    rome = find(made, "rome")
    assert rome.columns == ("Metric", "Before edit", "In context", "ROME")
    assert rome.rows[0] == ("Success", "10.0", "10.0", "90.0")
    table = list(csv.DictReader(io.StringIO(csv_text(found, plan.tables))))
    assert (table[0]["before"], table[0]["in_context"], table[0]["mean"]) == ("0.1", "0.1", "0.9")
