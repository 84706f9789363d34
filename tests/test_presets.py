"""Presets of published settings."""

from __future__ import annotations

import pytest

from hubedit.errors import ConfigError
from hubedit.presets import PRESETS, preset


def test_presets_are_complete() -> None:
    for name in PRESETS:
        config = preset(name.upper())
        assert (config.method, config.layers, config.lam) == ("intattn", "4-8", 15000.0)
        assert (config.prefer, config.targets.optimizer) == ("balanced", "adam")
    with pytest.raises(ConfigError, match="unknown preset") as caught:
        preset("gpt-5")
    assert all(name in caught.value.hint for name in PRESETS)
