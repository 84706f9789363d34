"""Curves over a sequence of edits: what the ends of it still answer, and one figure for all methods."""

from __future__ import annotations

import numpy as np

from hubedit.bench.figures import figures, sequence_figure, sequences
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
    few = first_and_last({"facts": facts[49:51]})
    assert few["sequence/oldest"] == few["sequence/newest"] == {"after": 0.5, "n": 2.0}
    assert first_and_last({}) == {}


def test_one_batch_begins_both_the_sequence_and_the_run_at_once() -> None:
    found = {name: [(x.edits, x.batch_size) for x in group] for name, group in sequences(LINES).items()}
    assert found == {
        "MEMIT, at once": [(10, 0), (20, 0)],
        "MEMIT, batches of 10": [(10, 0), (20, 10)],
        "UltraEdit, batches of 10": [(10, 0), (20, 10)],
    }


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
