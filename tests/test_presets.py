"""Presets of published settings."""

from __future__ import annotations

from typing import get_args

import pytest

from hubedit.config import MethodName
from hubedit.errors import ConfigError
from hubedit.presets import METHODS, PRESETS, preset


def test_presets_are_complete() -> None:
    for name in PRESETS:
        config = preset(name.upper())
        assert (config.method, config.layers, config.lam) == ("intattn", "4-8", 15000.0)
        assert (config.prefer, config.targets.optimizer) == ("balanced", "adam")
    with pytest.raises(ConfigError, match="unknown preset") as caught:
        preset("gpt-5")
    assert all(name in caught.value.hint for name in PRESETS)


def test_every_method_is_a_name_that_a_configuration_takes() -> None:
    assert tuple(METHODS) == get_args(MethodName)
    assert all(method.defaults.method == name for name, method in METHODS.items())
