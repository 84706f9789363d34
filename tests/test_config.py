"""Configurations survive JSON, and what they do not know is an error."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import pytest

from hubedit.config import (
    EditConfig,
    PromptConfig,
    StatsConfig,
    TargetConfig,
    TraceConfig,
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


def test_a_part_of_the_settings_that_is_no_mapping_is_refused() -> None:
    with pytest.raises(ConfigError, match="targets must be settings by name, and is 5"):
        from_dict(EditConfig, {"targets": 5})


@pytest.mark.parametrize(
    "question", ["Answer:", "{} or {}", "{prompt}?", "{0}", "{} {x}", "{!r}", "{:>9}", "{", "}"]
)
def test_a_question_has_room_for_the_prompt_and_nothing_else(question: str) -> None:
    with pytest.raises(ConfigError, match=r"question must hold \{\} once and no other field"):
        PromptConfig(question=question)
    assert PromptConfig(question="{{Q}} {}?").question.format("Why") == "{Q} Why?"


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
        ({"alpha": "1.5"}, "alpha '1.5' is not a share"),
        ({"alpha": "nan"}, "alpha 'nan' is not a share"),
        ({"layers": [1, 2]}, "layers must be text"),
        ({"layers": "4:8"}, "cannot read layers '4:8'"),
        ({"layers": "8-4"}, "layers 8-4 run backwards"),
        ({"null_space": "2 %%"}, "cannot read null space"),
        ({"method": "memmit"}, "unknown method 'memmit' .one of: joint, intattn, memit"),
        ({"method": None}, "method must be text"),
        ({"prefer": "speed"}, "unknown preference 'speed' .one of: success, balanced, locality"),
        ({"lam": -1.0}, "lam must not be negative"),
        ({"rank": "4"}, "rank must be a whole number"),
        ({"rank": True}, "rank must be a whole number"),
        ({"whiten": 1}, "whiten must be true or false"),
        ({"depths": 0.1}, "depths must be a tuple"),
        ({"depths": ("0.1", "0.2")}, "each of depths must be a number"),
        ({"depths": (0.2,)}, "depths must be two shares"),
        ({"depths": (0.5, 0.2)}, "depths must be two shares"),
        ({"collapse": "never"}, "unknown collapse 'never'"),
        ({"rank": -2}, "rank must not be negative"),
        ({"targets": {"steps": 3}}, "targets must be a TargetConfig"),
    ],
)
def test_a_wrong_value_is_an_error_where_it_is_given(config: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        EditConfig(**config)
    with pytest.raises(ConfigError, match=what):
        replace(EditConfig(), **config)


def test_so_is_one_of_a_part() -> None:
    with pytest.raises(ConfigError, match="names must be a share"):
        StatsConfig(names=1.5)
    with pytest.raises(ConfigError, match="at most 1,000,000,000"):
        StatsConfig(tokens=10**12)
    with pytest.raises(ConfigError, match="step must not be negative"):
        TargetConfig(step=float("nan"))
    with pytest.raises(ConfigError, match="tokens_per_rounds must be at least 1"):
        TargetConfig(tokens_per_rounds=0)
    with pytest.raises(ConfigError, match=r"unknown optimizer 'sgd' .one of: steepest, adam"):
        from_dict(TargetConfig, {"optimizer": "sgd"})
    with pytest.raises(ConfigError, match="each of openings must be text"):
        from_dict(PromptConfig, {"openings": ["", 1]})
    with pytest.raises(ConfigError, match="samples must be a whole number"):
        from_dict(EditConfig, {"trace": {"samples": 2.5}})


def test_what_is_all_right_is_taken() -> None:
    config = EditConfig(rank=-1, lam=3, alpha="per-layer", null_space="1%", layers="0-999999999999")
    assert (config.rank, config.lam) == (-1, 3)
