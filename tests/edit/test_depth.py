"""The last edited layer is measured, and the window of edited layers ends there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hubedit.config import TargetConfig
from hubedit.edit import depth as module
from hubedit.edit.balance import MOST_LAYERS
from hubedit.edit.depth import REACH, candidates, last_layer, window
from hubedit.edit.rows import Row, edit_rows
from hubedit.edit.targets import optimise
from hubedit.facts import Fact
from hubedit.model.editable import EditableModel
from hubedit.progress import Silent
from tests.edit.editing import FACTS

Editable = Callable[..., EditableModel]
EFFECTS = st.lists(st.floats(-1, 1), min_size=1, max_size=40)
CONFIG = TargetConfig(steps=7)


@given(EFFECTS)
def test_candidates_are_a_run_of_layers_around_the_peak(mlp: list[float]) -> None:
    found = candidates(mlp)
    assert found == list(range(found[0], found[-1] + 1))
    assert found[0] >= 0 and found[-1] <= max(len(mlp) - 2, 0), "the last layer can tell no other token"
    if max(mlp) > 0:
        peak = mlp.index(max(mlp))
        assert min(peak, found[-1]) in found
        assert found[-1] <= peak + REACH


@given(EFFECTS, st.data())
def test_the_window_is_a_run_inside_the_model_that_ends_at_last(
    mlp: list[float], data: st.DataObject
) -> None:
    last = data.draw(st.integers(0, len(mlp) - 1))
    most = data.draw(st.integers(1, 8))
    found = window(mlp, last, most)
    assert found == tuple(range(found[0], last + 1))
    assert found[0] >= 0
    assert 1 <= len(found) <= most


@given(EFFECTS)
def test_the_window_of_every_candidate_covers_a_peak_below_it(mlp: list[float]) -> None:
    peak = mlp.index(max(mlp))
    for last in candidates(mlp):
        found = window(mlp, last, MOST_LAYERS)
        assert len(found) <= MOST_LAYERS
        if last >= peak and mlp[peak] > 0:
            assert peak in found


def test_a_window_begins_where_the_effects_do() -> None:
    mlp = [0.0, 0.01, 0.1, 0.3, 0.2, 0.1, 0.01, 0.0]
    assert candidates(mlp) == [2, 3, 4, 5, 6]
    assert window(mlp, 5, MOST_LAYERS) == (2, 3, 4, 5)
    assert window(mlp, 3, MOST_LAYERS) == (2, 3)
    assert window(mlp, 7, MOST_LAYERS) == (3, 4, 5, 6, 7)
    assert window(mlp, 1, MOST_LAYERS) == (1,), "nothing strong so early"
    assert window([-0.1, 0.0, -0.2], 1, MOST_LAYERS) == (1,)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_the_last_layer_is_the_deepest_that_does_about_as_well(family: str, editable: Editable) -> None:
    em = editable(family)
    mlp = [0.1, 0.4, 0.2, 0.0]
    chosen, reached = last_layer(em, FACTS, mlp, CONFIG, Silent())
    assert list(reached) == candidates(mlp) == [0, 1, 2]
    best = min(reached.values())
    limit = best if best > module.HOPELESS else best * 1.25 + 0.05
    assert reached[chosen] <= limit
    assert all(nll > limit for layer, nll in reached.items() if layer > chosen)
    assert last_layer(em, FACTS, mlp, CONFIG, Silent()) == (chosen, reached)


def test_the_figures_are_those_of_a_short_plain_optimisation(editable: Editable) -> None:
    em = editable()
    _, reached = last_layer(em, FACTS, [1.0, 0.0, 0.0, 0.0], CONFIG, Silent())
    plain = TargetConfig(steps=module.STEPS, kl=0.0)
    for layer, nll in reached.items():
        found = optimise(em, edit_rows(em, FACTS, ()), len(FACTS), layer, plain)
        assert nll == pytest.approx(float(found.nll.clamp_max(5).mean()), abs=1e-6)


@pytest.mark.parametrize(("count", "tried"), [(1, 1), (16, 16), (17, 16), (100, 16)])
def test_few_facts_are_enough_and_they_are_spread_over_the_batch(
    count: int, tried: int, editable: Editable, monkeypatch: pytest.MonkeyPatch
) -> None:
    em = editable()
    seen: list[int] = []

    def fake(em: EditableModel, rows: Sequence[Row], number: int, *rest: Any) -> Any:
        seen.append(number)
        assert len({r.ids for r in rows}) == len(rows) == number, "no fact twice"
        return SimpleNamespace(nll=torch.ones(number))

    monkeypatch.setattr(module, "optimise", fake)
    facts = [Fact(f"The number after {n} is", str(n), "x") for n in range(count)]
    chosen, _ = last_layer(em, facts, [1.0, 0.0, 0.0], CONFIG, Silent())
    assert seen == [tried] * 2
    assert chosen == 1, "equally good: the deepest"


@pytest.mark.parametrize(
    ("reached", "chosen"),
    [
        ([0.1, 0.12, 0.17, 0.18], 2),
        ([0.1, 0.3, 0.17, 0.9], 2),
        ([2.0, 0.2, 0.31, 4.9], 1),
        ([0.0, 0.0, 0.05, 0.06], 2),
    ],
)
def test_about_as_well_is_a_quarter_and_a_little_more(
    reached: list[float], chosen: int, editable: Editable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fake(em: EditableModel, rows: Sequence[Row], number: int, layer: int, config: TargetConfig) -> Any:
        return SimpleNamespace(nll=torch.full((number,), reached[layer], dtype=torch.float64))

    monkeypatch.setattr(module, "optimise", fake)
    found, figures = last_layer(editable(), FACTS, [1.0, 0.0, 0.0, 0.0, 0.0], CONFIG, Silent())
    assert found == chosen
    assert figures == pytest.approx(dict(enumerate(reached)))
