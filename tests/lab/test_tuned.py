"""The trials of the published methods: as many for each, with settings it has, and the best one chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hubedit.bench.cells import cells
from tests.lab.tuned import METHODS, bench, best, trials


@pytest.mark.parametrize("method", METHODS)
def test_a_method_has_twelve_different_trials(method: str, tmp_path: Path) -> None:
    runs = trials(method, 30, [0.5, 2, 8])
    assert len(runs) == (6 if method == "r-rome" else 12)
    found = cells(bench(tmp_path, runs, "tuning", 20, [0]))
    # a setting that a method does not have is refused there
    assert len({str(cell.config) for cell in found}) == len(runs)
    assert {cell.config.method for cell in found} == {method}


def test_the_best_trial_is_that_of_the_best_mean_and_then_of_more_bystanders() -> None:
    runs = [*trials("ft", 18, [1]), *trials("memit", 18, [1, 2, 3])]

    def row(run: int, mean: float, others: float) -> dict[str, Any]:
        own = {"method": runs[run]["method"], "label": runs[run]["label"]}
        values = {"answers/harmonic_mean": mean, "answers/bystanders": others}
        return {"cell": own, "metrics": {name: {"after": value} for name, value in values.items()}}

    rows = [row(0, 0.2, 0.9), row(1, 0.3, 0.5), row(2, 0.3, 0.6), row(14, 0.1, 0.1)]
    failed = {"cell": rows[0]["cell"], "error": "a collapse"}
    assert best([failed, *rows], runs) == [runs[2], runs[14]]
    assert best([failed], runs) == []
