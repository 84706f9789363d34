"""Curves over a sequence of edits: what the ends of it still answer, and one figure for all methods."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hubedit.bench.figures import figures, panels_of, sequence_figure, sequences
from hubedit.bench.metrics import BYSTANDERS
from hubedit.bench.numbers import Line, Number
from hubedit.bench.row import first_and_last


def line(label: str, edits: int, batch: int, **numbers: float) -> Line:
    keys = {
        "newest": "sequence/newest",
        "oldest": "sequence/oldest",
        "bystanders": "answers/bystanders",
        "perplexity": "text/perplexity_ratio",
    }
    found = {keys[name]: Number(value) for name, value in numbers.items()}
    return Line("m", "d", label.lower(), label, "", batch, edits, found)


TASKS = {"tasks/gsm8k/exact": Number(0.25)}
LINES = [
    line("MEMIT", 10, 0, newest=1.0, oldest=1.0, perplexity=1.0),
    line("MEMIT", 20, 10, newest=0.9, oldest=0.8, perplexity=1.1),
    line("MEMIT", 20, 0, newest=1.0, oldest=1.0, perplexity=1.05),
    line("UltraEdit", 10, 0, newest=0.5, oldest=0.5, perplexity=1.0),
    line("UltraEdit", 20, 10, newest=0.6, oldest=0.4, perplexity=1.0),
]


def test_the_ends_are_the_oldest_and_the_newest_hundred() -> None:
    facts = [{"success": n >= 50} for n in range(250)]
    assert first_and_last({"facts": facts}) == {
        "sequence/oldest": {"after": 0.5, "n": 100.0},
        "sequence/newest": {"after": 1.0, "n": 100.0},
    }
    # of fewer, the older and the newer half; one in the middle is of both
    few = first_and_last({"facts": facts[48:51]})
    assert few == {"sequence/oldest": {"after": 0.0, "n": 2.0}, "sequence/newest": {"after": 0.5, "n": 2.0}}
    assert first_and_last({}) == {}


def test_one_batch_begins_both_the_sequence_and_the_run_at_once() -> None:
    found = {name: [(x.edits, x.batch_size) for x in group] for name, group in sequences(LINES).items()}
    assert found == {
        "MEMIT, at once": [(10, 0), (20, 0)],
        "MEMIT, batches of 10": [(10, 0), (20, 10)],
        "UltraEdit, batches of 10": [(10, 0), (20, 10)],
    }


def test_methods_without_batches_are_one_sequence() -> None:
    more = [line("R-ROME", n, 0, newest=1.0) for n in (10, 20)]
    more += [line("ft", n, batch, newest=1.0) for n, batch in ((10, 0), (200, 100))]
    found = {name: [x.edits for x in group] for name, group in sequences([*LINES, *more]).items()}
    assert found["R-ROME, one by one"] == [10, 20] and found["ft, at once"] == [10, 200]
    assert len(found) == 5
    assert not panels_of(more), "no batches followed one another"


def test_tasks_are_drawn_too() -> None:
    own = [replace(x, numbers={**x.numbers, **TASKS, BYSTANDERS.key: Number(0.9)}) for x in LINES]
    made = sequence_figure(own, "m, d")
    names = ["Newest hundred", "Oldest hundred", "Bystanders", "PPL ratio", "gsm8k exact"]
    assert [axis.get_ylabel() for axis in made.axes] == names
    (curve, *_) = made.axes[-1].get_lines()
    assert np.asarray(curve.get_ydata()).tolist() == [25.0, 25.0]


def test_all_methods_are_in_one_figure_of_what_was_measured() -> None:
    made = sequence_figure(LINES, "m, d")
    names = [axis.get_ylabel() for axis in made.axes]
    assert names == ["Newest hundred", "Oldest hundred", "PPL ratio"]
    drawn = [np.asarray(curve.get_ydata()).tolist() for curve in made.axes[1].get_lines()]
    assert drawn == [[100.0, 100.0], [100.0, 80.0], [50.0, 40.0]]
    (legend,) = made.legends
    assert [text.get_text() for text in legend.get_texts()] == list(sequences(LINES))


def test_it_is_drawn_where_batches_followed_one_another() -> None:
    assert figures(LINES)["sequence-m-d.png"].startswith(b"\x89PNG")
    assert "sequence-m-d.png" not in figures([one for one in LINES if not one.batch_size])
