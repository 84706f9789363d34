"""Points of the space as settings, and the budget's text."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubedit.config import EditConfig
from hubedit.edit.balance import MOST_LAYERS, parse_layers
from hubedit.errors import ConfigError
from hubedit.presets import check_settings
from hubedit.tune.budget import parse_budget
from hubedit.tune.space import DRIFT_MLP, Point, Space, all_layers

optuna = pytest.importorskip("optuna")


@given(st.integers(0, 40), st.integers(0, 5), st.integers(0, 10_000))
def test_every_point_is_a_setting_that_fits(first: int, more: int, seed: int) -> None:
    space = Space(first, first + more)
    fixed: dict[str, Any] = space.distributions()
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    point = space.point(study.ask(fixed).params)
    config = point.config(EditConfig(seed=3))
    check_settings(config)
    layers = parse_layers(config.layers, space.final + 1)
    assert layers[-1] == point.last and len(layers) == min(point.width, point.last + 1)
    assert set(layers) <= set(all_layers(space))
    assert config.search == point.search and config.seed == 3
    assert 0 <= float(config.alpha) <= 0.6
    mlp = EditConfig().drift_mlp if point.search else point.drift_mlp
    assert config.drift_mlp == pytest.approx(mlp, rel=0.01)
    assert config.polish == round(EditConfig().polish * 2.0**point.polish) > 0
    assert config.targets.kl == 2.0**point.kl and config.targets.essence == point.essence


def test_what_alpha_leaves_out_is_not_set() -> None:
    base = EditConfig(polish=20)
    point = Point(3, 2, 0.0, False, 0.1, 0.01, 0, 8, 1)
    more = {"polish": 40, "targets": {"kl": 1.0, "essence": 8}}
    assert point.settings(base) == {
        "layers": "2-3",
        "alpha": "0",
        "search": False,
        "drift_mlp": 0.1,
        **more,
    }
    searched = {"layers": "2-3", "alpha": "0.1", "search": True, **more}
    assert replace(point, search=True, alpha=0.1).settings(base) == searched
    assert Point(0, 4, 0.1, False, 0.1, 0.01, 0, 8, 0).layers == "0"


@pytest.mark.parametrize(("layers", "alpha", "mlp"), [((1,), 0.33, 0.2), ((0, 1, 2), 1.0, 3.0), ((9,), 0, 0)])
def test_the_first_trials_are_inside_the_space(layers: tuple[int, ...], alpha: float, mlp: float) -> None:
    class Made:
        """As much of an Edit as is looked at."""

        def __init__(self) -> None:
            self.layers, self.alpha, self.found = layers, dict.fromkeys(layers, alpha), None

    space = Space(1, 4)
    made: Any = Made()
    starts = space.starts(made, EditConfig(drift_mlp=mlp))
    for parameters in starts:
        for name, allowed in space.distributions().items():
            assert allowed._contains(allowed.to_internal_repr(parameters[name])), name
    assert starts[0]["drift_mlp"] == min(max(mlp, DRIFT_MLP[0]), DRIFT_MLP[1])
    assert starts[0]["width"] == min(len(layers), MOST_LAYERS)
    # layers and share alone are about the default, which has been measured
    assert len(starts) == len({str(p) for p in starts}) >= 5
    assert {**starts[0], "polish": 0} not in starts
    assert len(space.starts(made, EditConfig(polish=0, drift_mlp=mlp))) == len(starts) - 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30m", 1800), ("2h", 7200), ("90s", 90), ("1h30m", 5400), ("1.5h", 5400), (" 2 M ", 120)],
)
def test_budgets(text: str, seconds: float) -> None:
    assert parse_budget(text) == seconds


def test_no_time_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match="no time for a trial"):
        parse_budget("0s")


@pytest.mark.parametrize("text", ["", "30", "m", "soon", "-3m", "3d", "30m2h"])
def test_what_is_no_budget(text: str) -> None:
    with pytest.raises(ConfigError, match="cannot read the budget"):
        parse_budget(text)
