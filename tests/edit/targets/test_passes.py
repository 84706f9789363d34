"""Facts that are optimised together: how many, what happens when memory runs out, and what is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from hubedit.edit.targets.optimise import chunk_tokens, optimise
from hubedit.errors import HubEditError
from hubedit.model.editable import EditableModel
from hubedit.progress import Silent
from tests.edit.editing import FACTS
from tests.edit.targets.test_optimise import CONFIG, LAYER, close, rows_of
from tests.watching import little_memory, passes

Editable = Callable[..., EditableModel]


class Counting(Silent):
    """How many facts are finished, after each message that some are."""

    def __init__(self) -> None:
        self.done = [0]

    def advance(self, amount: int = 1) -> None:
        self.done.append(self.done[-1] + amount)


def test_out_of_memory_splits_the_batch_and_loses_nothing(editable: Editable) -> None:
    em, progress = editable(), Counting()
    expected = optimise(em, rows_of(em), len(FACTS), LAYER, CONFIG)
    # one fact's rows fit, and not all of them, however small a pass is
    with little_memory(em, tokens=100, layer=LAYER + 1) as sizes:
        close(optimise(em, rows_of(em), len(FACTS), LAYER, CONFIG, progress=progress), expected)
    assert max(sizes) > 100 and progress.done[-1] == len(FACTS)
    with (
        little_memory(em, tokens=0, layer=LAYER + 1, error=MemoryError()),
        pytest.raises(HubEditError, match="one fact at a time"),
    ):
        optimise(em, rows_of(em), len(FACTS), LAYER, CONFIG)


def test_facts_are_told_as_they_finish_and_each_once(editable: Editable) -> None:
    em, progress = editable(), Counting()
    soon = optimise(em, rows_of(em), len(FACTS), LAYER, replace(CONFIG, steps=4)).loss.sort().values
    config = replace(CONFIG, loss=float(soon[1]))  # two facts are finished after four steps
    before = 0

    def full(x: Tensor) -> None:
        # once, when some are finished and others are not: what was begun begins again
        nonlocal before
        if not before and 2 <= progress.done[-1] < len(FACTS):
            before = progress.done[-1]
            raise torch.OutOfMemoryError("CUDA out of memory")

    with passes(em, full, LAYER + 1):
        optimise(em, rows_of(em), len(FACTS), LAYER, config, progress=progress)
    assert 2 <= before < len(FACTS) == progress.done[-1]


@pytest.mark.parametrize(("hidden", "vocabulary", "tokens"), [(64, 1000, 49152), (896, 151936, 12288)])
def test_more_facts_at_once_where_they_are_small(hidden: int, vocabulary: int, tokens: int) -> None:
    em: Any = SimpleNamespace(
        device=torch.device("cpu"), hidden_size=hidden, vocabulary=vocabulary, num_layers=24
    )
    assert chunk_tokens(em, 7) == tokens
