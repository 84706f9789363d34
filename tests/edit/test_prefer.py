"""`EditConfig.prefer` reaches the probes that every candidate, the polish and the repair are judged by."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hubedit.config import EditConfig, TargetConfig
from hubedit.edit.asked import prepare
from hubedit.edit.probes import PREFER
from hubedit.model.editable import EditableModel
from hubedit.model.tokens import encode
from tests.edit.editing import FACTS
from tests.pico import SENTENCES


@pytest.mark.parametrize("name", PREFER)
def test_the_preference_reaches_the_probes(editable: Callable[..., EditableModel], name: str) -> None:
    em = editable()
    rows = [encode(em.tokenizer, text).ids for text in SENTENCES]
    config = EditConfig(prefer=name, targets=TargetConfig(told=0, implied=0, contexts=1))
    assert prepare(em, FACTS, config, rows, rows[:4]).probes.weight == PREFER[name]
