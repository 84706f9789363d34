"""Fixtures for every test: a cache of its own, one thread, and tiny models made once a session."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from transformers.utils import logging

from hubedit.model.editable import EditableModel
from hubedit.model.load import load
from tests.pico import TokenizerKind, pico

without_bars: Any = logging.disable_progress_bar  # it has no annotations
without_bars()
torch.set_num_threads(1)
# pytest-xdist tells its workers the width of a terminal; output that is no terminal has none
os.environ.pop("COLUMNS", None)
# the time of one example depends on the machine; the number of examples can be raised for a long search
settings.register_profile("hubedit", deadline=None, max_examples=50)
settings.register_profile("long", deadline=None, max_examples=10_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "hubedit"))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBEDIT_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(autouse=True)
def _same_seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def pico_path(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`pico_path(family, tokenizer)`: the folder of a tiny model. Shared: copy it before changing it."""
    made: dict[tuple[str, str], Path] = {}

    def make(family: str = "llama", tokenizer: TokenizerKind = "byte_bpe") -> Path:
        key = (family, tokenizer)
        if key not in made:
            made[key] = pico(family, tmp_path_factory.mktemp(f"{family}-{tokenizer}"), tokenizer)
        return made[key]

    return make


@pytest.fixture(scope="session")
def _loaded(pico_path: Callable[..., Path]) -> Callable[..., EditableModel]:
    made: dict[tuple[str, str], EditableModel] = {}

    def make(family: str = "llama", tokenizer: TokenizerKind = "byte_bpe") -> EditableModel:
        key = (family, tokenizer)
        if key not in made:
            made[key] = load(str(pico_path(family, tokenizer)), device="cpu")
        return made[key]

    return make


@pytest.fixture
def editable(_loaded: Callable[..., EditableModel]) -> Iterator[Callable[..., EditableModel]]:
    """`editable(family, tokenizer)`: a tiny model, loaded once a session; its weights must not change."""
    used: dict[int, tuple[EditableModel, str]] = {}

    def get(family: str = "llama", tokenizer: TokenizerKind = "byte_bpe") -> EditableModel:
        em = _loaded(family, tokenizer)
        used.setdefault(id(em), (em, em.weights_hash()))
        return em

    yield get
    for em, before in used.values():
        assert em.weights_hash() == before, "the test changed the model's weights"
