"""Facts that are optimised together: how many, what happens when memory runs out, and what is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hubedit.edit.rows import Row
from hubedit.edit.targets import optimise as module
from hubedit.edit.targets.optimise import optimise
from hubedit.errors import HubEditError
from hubedit.model.editable import EditableModel
from hubedit.progress import Silent
from tests.edit.editing import FACTS
from tests.edit.targets.test_optimise import CONFIG, LAYER, close, rows_of

Editable = Callable[..., EditableModel]


def test_out_of_memory_splits_the_batch_and_loses_nothing(
    editable: Editable, monkeypatch: pytest.MonkeyPatch
) -> None:
    em = editable()
    expected = optimise(em, rows_of(em), len(FACTS), LAYER, CONFIG)
    sizes: list[int] = []
    inner = module._optimise_chunk

    def tight(em: EditableModel, rows: list[Row], facts: list[int], *rest: Any) -> object:
        sizes.append(len(facts))
        if len(facts) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return inner(em, rows, facts, *rest)

    class Counting(Silent):
        done = 0

        def advance(self, amount: int = 1) -> None:
            self.done += amount

    progress = Counting()
    monkeypatch.setattr(module, "_optimise_chunk", tight)
    close(optimise(em, rows_of(em), len(FACTS), LAYER, CONFIG, progress=progress), expected)
    assert sizes[0] == len(FACTS)
    assert sum(n for n in sizes if n <= 2) == progress.done == len(FACTS)
    monkeypatch.setattr(module, "_optimise_chunk", lambda *a: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(HubEditError, match="one fact at a time"):
        optimise(em, rows_of(em), len(FACTS), LAYER, CONFIG)


def test_facts_are_told_as_they_finish_and_each_once(
    editable: Editable, monkeypatch: pytest.MonkeyPatch
) -> None:
    em = editable()
    soon = optimise(em, rows_of(em), len(FACTS), LAYER, replace(CONFIG, steps=4)).loss.sort().values
    inner, calls, told, before = module._objective, 0, [0], 0

    class Counting(Silent):
        def advance(self, amount: int = 1) -> None:
            told.append(told[-1] + amount)

    def tight(*given: Any, **options: Any) -> Any:
        nonlocal calls, before
        calls += 1
        if calls == 9:
            before = told[-1]
            raise torch.OutOfMemoryError("CUDA out of memory")
        return inner(*given, **options)

    monkeypatch.setattr(module, "_LEAST", 2**30)  # the facts are split, and not the passes
    monkeypatch.setattr(module, "_objective", tight)
    config = replace(CONFIG, loss=float(soon[1]))  # two facts are finished after four steps
    optimise(em, rows_of(em), len(FACTS), LAYER, config, progress=Counting())
    assert 2 <= before < len(FACTS) == told[-1]


@pytest.mark.parametrize(("hidden", "vocabulary", "tokens"), [(64, 1000, 49152), (896, 151936, 12288)])
def test_more_facts_at_once_where_they_are_small(hidden: int, vocabulary: int, tokens: int) -> None:
    em: Any = SimpleNamespace(
        device=torch.device("cpu"), hidden_size=hidden, vocabulary=vocabulary, num_layers=24
    )
    assert module.chunk_tokens(em, 7) == tokens
