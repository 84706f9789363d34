"""How a written patch is shown, of many facts and of few."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console, Group

from hubedit.cli import applied as shown
from hubedit.cli.output import Output
from hubedit.evaluate import EditReport, Outcome
from hubedit.evaluate.edits import Case
from hubedit.facts import Fact


def test_many_facts_are_folded() -> None:
    outcomes = tuple(
        Outcome(Fact(f"Prompt {n} is", f"{n}", "x"), "old", "new " * 40, 0.0, 1.0, 9000, 1, n % 10 != 9)
        for n in range(100)
    )
    record = {
        "method": "joint",
        "alpha": {"1": 0.25, "2": 0.5},
        "alpha_from": "trace",
        "layers": [1, 2],
        "layers_from": "trace",
        "perplexity": {"before": 10.0, "after": 10.5},
        "truncation": {"rank": 128, "energy": {"a": 0.987654}, "text": {"a": 0.998}},
        "seconds": 75.0,
        "peak_memory": {"process": 10**9, "device": 2 * 10**9},
    }
    made: Any = SimpleNamespace(
        report=EditReport(outcomes, {"success": 0.9}, {"success": 100}),
        patch=SimpleNamespace(record=record, size=12_300_000, rank=128, factors={"a": 1}),
        path=Path("patch"),
        content={"metrics": {"success": 0.9}, "counts": {"success": 100}},
    )
    console = Console(width=150, record=True, file=StringIO())
    console.print(Group(*shown._tables(made)))
    lines = console.export_text().splitlines()
    rows = [line for line in lines if line.startswith("Prompt ")]
    assert len(rows) == 30
    assert rows[0].startswith("Prompt 9 is") and rows[10].startswith("Prompt 0 is")
    text = "\n".join(lines)
    for part in (
        "30 of 100 facts",
        "9,000 -> 1",
        "…",
        "1: 0.25, 2: 0.5 (measured",
        "1.2 % of",
        "1:15",
        "GPU",
    ):
        assert part in text
    assert "12.3 MB, rank 128" in text


def test_a_short_report_counts_what_follows_from_few_facts() -> None:
    content: dict[str, Any] = {"metrics": {"success": 1.0}, "counts": {"success": 2}}
    made: Any = SimpleNamespace(
        patch=SimpleNamespace(record={"seconds": 3.0}, size=12_300), path=Path("patch"), content=content
    )
    assert "follows" not in dict(shown.few_rows(made))
    content["metrics"]["portability"], content["counts"]["portability"] = 0.75, 4
    assert dict(shown.few_rows(made))["follows"] == "3 of 4"


def test_answers_that_should_have_stayed_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    fact = Fact("The capital of Peru is", "Peru", "Quito")
    cases = [Case("neighbourhood", fact, f"Prompt {n}", (), f"old {n}", f"new {n}") for n in range(5)]
    cases.append(Case("success", fact, "The capital of Peru is", ("Quito",), "Lima", "Lima"))
    made: Any = SimpleNamespace(report=EditReport((), {}, {}, cases=tuple(cases)), path=Path("patch"))
    shown._tell_changed(Output(), made)
    said = capsys.readouterr().err
    assert "5 answers that should stay changed" in said and "Prompt 2 (said: old 2, says: new 2)" in said
    assert "Prompt 3" not in said and "and 2 more" in said and "Lima" not in said
