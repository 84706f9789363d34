"""The benchmark of batches one after another: its draws, its cells, and the file that is the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hubedit.bench.cells import cells
from hubedit.bench.change import changed
from hubedit.bench.plan import read_bench
from hubedit.config import EditConfig
from hubedit.facts import Fact
from hubedit.presets import FAST, FAST_TOKENS
from hubedit.presets import METHODS as ALL
from tests.lab.sequence import METHODS, bench, draw

BENCH = Path(__file__).parent / "bench"


def test_draws_differ_and_leave_the_bystanders_out() -> None:
    facts = [Fact(f"{n} is", str(n), "x") for n in range(40)]
    first, second = (draw(facts, 10, seed, facts[:5]) for seed in (0, 1))
    assert first == draw(facts, 10, 0, facts[:5]) != second
    assert draw(facts, 30, 0, facts[:5])[:10] == first, "a longer sequence begins as a shorter one"
    assert len(set(first)) == 10 and not {f.subject for f in first} & {f.subject for f in facts[:5]}
    with pytest.raises(ValueError, match="there are 35 facts, and 36 are wanted"):
        draw(facts, 36, 0, facts[:5])


def test_the_points_are_batches_in_sequence_and_at_once(tmp_path: Path) -> None:
    plan = bench(tmp_path / "gemma", 10, 10, 3, ["joint", "ultraedit"])
    assert plan.edits == (10, 20, 40, 60, 80, 100)
    found = {(c.edits, c.batch_size) for c in cells(plan)}
    assert found == {(10, 0), *((n, size) for n in plan.edits[1:] for size in (0, 10))}


@pytest.mark.parametrize(
    ("name", "batches", "size"), [("real-sequence", 20, 25), ("real-sequence-10", 10, 10)]
)
def test_the_files_have_the_same_methods_and_measures(
    name: str, batches: int, size: int, tmp_path: Path
) -> None:
    file = read_bench(BENCH / f"{name}.toml")
    same = bench(tmp_path, batches, size, 3, METHODS)
    assert [run.method for run in file.runs] == [run.method for run in same.runs] == list(METHODS)
    assert set(METHODS) <= set(ALL)
    assert (file.edits, file.seeds, file.measure, file.sample) == (
        same.edits,
        same.seeds,
        same.measure,
        "first",
    )
    assert [entry.source for entry in file.data] == [entry.source for entry in same.data]
    other = bench(tmp_path, batches, size, 3, METHODS, "zsre")
    assert [entry.source for entry in other.data] == ["{model}/known/zsre-sequence-{seed}.jsonl"]
    assert [run.batch_sizes for run in file.runs] == [run.batch_sizes for run in same.runs]


def test_the_table_of_fast_edits_has_their_settings() -> None:
    plan = changed(read_bench(BENCH / "real-fast.toml"), models=["gemma-3-270m=org/gemma-3-270m"])
    found = {c.label: c.config for c in cells(plan) if c.seed == 0}
    stats = replace(FAST.stats, tokens=FAST_TOKENS * 2048)  # of Gemma-3-270M
    assert found["--fast"] == replace(FAST, stats=stats, collapse="tell")
    assert found["hubedit default"] == replace(EditConfig(), collapse="tell")
