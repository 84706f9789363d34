"""Memory limits are read rightly, and a model that is offloaded gives what the whole one gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hubedit.config import TargetConfig
from hubedit.edit.targets.optimise import optimise
from hubedit.errors import ConfigError
from hubedit.model.editable import EditableModel
from hubedit.model.limits import parse_memory, placement
from hubedit.model.load import load
from tests.edit.targets.test_optimise import rows_of


def test_limits_are_read() -> None:
    assert parse_memory("") == {}
    assert parse_memory("24GiB") == {"gpu": 24 * 2**30}
    assert parse_memory("0=20GB, 1=1.5MiB,cpu=60KB") == {0: 20 * 10**9, 1: 3 * 2**19, "cpu": 60_000}


@pytest.mark.parametrize("text", ["much", "tpu=3GiB", "0GiB", "-1GiB", "0=", "3TiB"])
def test_what_is_no_limit_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="max-memory"):
        parse_memory(text)


def test_without_a_gpu_only_a_limit_for_the_cpu_spreads_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert placement({"gpu": 2**30}) == {}
    assert placement({"cpu": 2**30})["max_memory"] == {"cpu": 2**30}


@pytest.mark.parametrize("family", ["qwen2", "gpt2"])
def test_an_offloaded_model_is_the_same_model(
    family: str, pico_path: Callable[..., Path], editable: Callable[..., EditableModel]
) -> None:
    whole = editable(family)
    spread = load(str(pico_path(family)), max_memory="cpu=160KB")
    model: Any = spread.model
    places = set(model.hf_device_map.values())
    assert "disk" in places
    assert any(p.device.type == "meta" for p in spread.model.parameters())
    assert spread.device.type == "cpu"
    assert spread.weights_hash() == whole.weights_hash()
    for site in whole.sites():
        assert spread.d_in(site) == whole.d_in(site)
        torch.testing.assert_close(spread.weight(site), whole.weight(site))
    config = TargetConfig(steps=3)
    expected = optimise(whole, rows_of(whole, [0, 1]), 2, 1, config)
    found = optimise(spread, rows_of(spread, [0, 1]), 2, 1, config)
    torch.testing.assert_close(found.delta, expected.delta, atol=1e-5, rtol=1e-4)
