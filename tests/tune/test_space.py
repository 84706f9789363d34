"""Points of the space as settings, and the budget's text."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubedit.config import EditConfig, TargetConfig
from hubedit.edit.locate.layers import default_layers, parse_layers
from hubedit.errors import ConfigError
from hubedit.presets import check_settings
from hubedit.tune.budget import parse_budget
from hubedit.tune.space import Point, Space

optuna = pytest.importorskip("optuna")


@given(st.integers(3, 100), st.integers(0, 10_000))
def test_every_point_is_a_setting_that_fits(num_layers: int, seed: int) -> None:
    space = Space.of(num_layers)
    fixed: dict[str, Any] = space.distributions()
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    point = space.point(study.ask(fixed).params)
    config = point.config(EditConfig(seed=3))
    check_settings(config)
    layers = parse_layers(config.layers, num_layers - 1)  # after the last layer no token reads a change
    assert layers[-1] == point.last and layers[0] == max(0, point.last - point.width)
    assert set(layers) <= set(space.layers())
    assert config.seed == 3 and 0 <= float(config.alpha) <= 0.6
    assert config.lam == pytest.approx(point.lam, rel=0.01)
    assert config.targets.clamp == pytest.approx(point.clamp, rel=0.01)
    assert config.targets.kl == 2.0**point.kl


def test_the_default_layers_are_in_the_space() -> None:
    for num_layers in (2, 4, 18, 32, 80):
        space, usual = Space.of(num_layers), default_layers(num_layers, EditConfig())
        assert space.first <= usual[-1] <= space.final and usual[-1] in space.layers()


def test_a_point_is_few_settings() -> None:
    point = Point(3, 2, 0.1, 0.61234, 29.96, -1)
    assert point.settings() == {
        "layers": "1-3",
        "alpha": "0.1",
        "lam": 30.0,
        "targets": {"clamp": 0.612, "kl": 0.5},
    }
    assert replace(point, width=0).layers == "3"
    assert replace(point, last=0).layers == "0"


@pytest.mark.parametrize(
    ("layers", "alpha", "base"),
    [
        ((1,), 0.33, EditConfig()),
        ((0, 4), 0.0, EditConfig(lam=1e6, targets=TargetConfig(clamp=9.0, kl=0.0))),
        ((9,), 1.0, EditConfig(lam=0.0, targets=TargetConfig(clamp=0.01, kl=1e3))),
    ],
)
def test_the_first_trials_are_inside_the_space_and_differ_from_the_default(
    layers: tuple[int, ...], alpha: float, base: EditConfig
) -> None:
    made: Any = SimpleNamespace(layers=layers, alpha=dict.fromkeys(layers, alpha))  # what is looked at
    space = Space(1, 4)
    starts = space.starts(made, base)
    for parameters in starts:
        for name, allowed in space.distributions().items():
            assert allowed._contains(allowed.to_internal_repr(parameters[name])), (name, parameters)
    assert len(starts) == len({str(p) for p in starts}) >= 4


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
