"""The settings that a patch of an older version was made with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from hubedit.config import EditConfig, to_dict
from hubedit.linalg import LowRank
from hubedit.patch import Patch
from hubedit.patch.again import settings_of
from hubedit.presets import check_settings, method_defaults


def recorded(config: dict[str, Any]) -> Patch:
    factor = LowRank(torch.ones(2, 1), torch.ones(1, 2))
    return Patch({"model.layers.0.mlp.down_proj": factor}, {"config": config}, "m", "")


def test_what_a_patch_names_is_taken_as_it_is() -> None:
    config = replace(EditConfig(), chat_step=2.0, chat_template=0.5)
    assert settings_of(recorded(to_dict(config))) == config


@pytest.mark.parametrize("method", ["joint", "memit"])
def test_settings_that_came_later_are_as_they_were(method: Any) -> None:
    """An older patch was made without them, and is made again without them; its method still takes them."""
    config = to_dict(EditConfig() if method == "joint" else method_defaults(method))
    for part, names in (
        (config, ("chat_template", "chat_step", "norm_step", "lam_facts", "lam_per_fact")),
        (config["targets"], ("tokens_per_rounds",)),
    ):
        for name in names:
            del part[name]
    del config["stats"]["names"]
    found = settings_of(recorded(config))
    check_settings(found)
    assert found.stats.names == 0 and found.targets.rounds_for(1000) == found.targets.rounds
    if method == "joint":
        assert (found.chat_template, found.chat_step, found.norm_step) == (0, 1, 1)
        assert found.lam_for(1000) == found.lam
