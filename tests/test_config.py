"""Configurations survive JSON, and what they do not know is an error."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import pytest

from hubedit.config import (
    EditConfig,
    StatsConfig,
    TargetConfig,
    TraceConfig,
    check_types,
    from_dict,
    to_dict,
)
from hubedit.errors import ConfigError

KINDS = (EditConfig, StatsConfig, TargetConfig, TraceConfig)


@pytest.mark.parametrize("kind", KINDS)
def test_json_and_back(kind: type[EditConfig]) -> None:
    config = kind()
    assert from_dict(kind, json.loads(json.dumps(to_dict(config)))) == config
    assert from_dict(kind, {}) == config


def test_nested_settings_survive() -> None:
    config = EditConfig(alpha="0.3", targets=TargetConfig(steps=3), stats=StatsConfig("a.txt", 9))
    again = from_dict(EditConfig, json.loads(json.dumps(to_dict(config))))
    assert again == config
    assert isinstance(again.targets, TargetConfig)


def test_part_of_the_settings_leaves_the_rest_at_its_default() -> None:
    config = from_dict(EditConfig, {"targets": {"steps": 3}, "seed": 5})
    assert config == replace(EditConfig(), targets=TargetConfig(steps=3), seed=5)


@pytest.mark.parametrize("data", [{"alfa": 1}, {"targets": {"step_size": 1}}, {"trace": {"seeds": 1}}])
def test_an_unknown_key_is_named_with_the_known_ones(data: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"unknown setting '(alfa|step_size|seeds)'") as caught:
        from_dict(EditConfig, data)
    assert "seed" in caught.value.hint or "step" in caught.value.hint
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("kind", KINDS)
def test_they_are_frozen_and_documented(kind: type[EditConfig]) -> None:
    config = kind()
    name = fields(config)[0].name
    with pytest.raises(FrozenInstanceError):
        setattr(config, name, None)
    assert kind.__doc__ and not kind.__doc__.startswith(f"{kind.__name__}(")


def test_a_configuration_is_what_its_json_is() -> None:
    config = EditConfig(depths=(0.25, 0.5))
    data = to_dict(config)
    assert json.loads(json.dumps(data)) == data
    assert from_dict(EditConfig, data) == config


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ({"alpha": 0.3}, "alpha must be text in quotation marks, and is 0.3"),
        ({"layers": [1, 2]}, "layers must be text"),
        ({"rank": "4"}, "rank must be a whole number"),
        ({"rank": True}, "rank must be a whole number"),
        ({"whiten": 1}, "whiten must be true or false"),
        ({"depths": 0.1}, "depths must be a tuple"),
        ({"collapse": "never"}, "unknown collapse 'never'"),
        ({"rank": -2}, "rank must not be negative"),
        ({"targets": {"steps": 3}}, "targets must be a TargetConfig"),
        ({"targets": TargetConfig(step=float("nan"))}, "step must not be negative"),
        ({"targets": from_dict(TargetConfig, {"optimizer": "sgd"})}, "unknown optimizer 'sgd'"),
    ],
)
def test_values_of_a_wrong_kind_are_errors(config: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        check_types(replace(EditConfig(), **config))
    check_types(replace(EditConfig(), rank=-1, lam=3))
