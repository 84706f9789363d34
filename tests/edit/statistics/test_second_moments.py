"""Second moments: exact, resumable, cached under every input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hubedit.cache import Cache
from hubedit.config import StatsConfig
from hubedit.edit.statistics.corpus import corpus_key, token_rows
from hubedit.edit.statistics.second_moments import cached_entries, clear_entries, second_moments, stats_key
from hubedit.edit.statistics.size import needed_tokens
from hubedit.linalg import Moments
from hubedit.model.editable import EditableModel
from hubedit.model.hooks import run
from hubedit.model.load import load
from hubedit.model.sites import Site
from hubedit.model.tokens import pad
from hubedit.progress import Silent
from tests.pico import SENTENCES, pico
from tests.watching import little_memory, no_pass, passes

SITES = [Site(0, "attention"), Site(0, "mlp"), Site(2, "mlp")]
TOKENS = 300


@pytest.fixture
def em(tmp_path: Path) -> EditableModel:
    return load(str(pico("qwen2", tmp_path / "model")), device="cpu")


@pytest.fixture
def config(tmp_path: Path) -> StatsConfig:
    file = tmp_path / "text.txt"
    file.write_text("\n".join(SENTENCES))
    return StatsConfig(str(file), TOKENS, names=0)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def direct(em: EditableModel, rows: Sequence[Sequence[int]], site: Site) -> Tensor:
    """E[k k^T] row by row, in float64, without padding and without every row's first token."""
    keys = [run(em, pad([row], 0), inputs=[site]).inputs[site][0, 1:].double() for row in rows]
    x = torch.cat(keys)
    return x.T @ x / len(x)


def test_moments_equal_the_dense_computation(em: EditableModel, config: StatsConfig, cache: Cache) -> None:
    found = second_moments(em, SITES, config, cache, Silent())
    rows = token_rows(em, config, TOKENS, cache, Silent())
    assert list(found) == SITES
    for site, moments in found.items():
        assert moments.count == TOKENS - len(rows)
        assert moments.matrix.dtype == torch.float32
        torch.testing.assert_close(moments.matrix.double(), direct(em, rows, site), atol=1e-6, rtol=1e-5)


def test_batching_does_not_matter(em: EditableModel, config: StatsConfig, tmp_path: Path) -> None:
    one = second_moments(em, SITES, config, Cache(tmp_path / "a"), Silent())
    other = second_moments(em, SITES, config, Cache(tmp_path / "b"), Silent(), tokens_at_once=1)
    for site in SITES:
        torch.testing.assert_close(one[site].matrix, other[site].matrix, atol=1e-6, rtol=1e-5)


def test_out_of_memory_halves_the_batch_and_loses_nothing(
    em: EditableModel, config: StatsConfig, tmp_path: Path
) -> None:
    expected = second_moments(em, SITES, config, Cache(tmp_path / "a"), Silent())
    with little_memory(em, tokens=100) as sizes:
        found = second_moments(em, SITES, config, Cache(tmp_path / "b"), Silent())
    assert max(sizes) > 100
    for site in SITES:
        assert found[site].count == expected[site].count < TOKENS
        torch.testing.assert_close(found[site].matrix, expected[site].matrix, atol=1e-6, rtol=1e-5)


def test_one_pass_that_stops_after_the_last_layer(
    em: EditableModel, config: StatsConfig, cache: Cache
) -> None:
    layers: list[int] = []

    def at(layer: int) -> Callable[[Tensor], None]:
        return lambda _: layers.append(layer)

    with ExitStack() as stack:
        for layer in range(em.num_layers):
            stack.enter_context(passes(em, at(layer), layer))
        second_moments(em, SITES[:2], config, cache, Silent())
        assert layers == [0], "both of layer 0 at once"
        second_moments(em, SITES, config, cache, Silent())
        assert layers == [0, 0, 1, 2], "what is there is not computed again"
    with no_pass(em):
        second_moments(em, SITES, config, cache, Silent())


class StoppedError(Exception):
    """Stands for Ctrl-C."""


def test_an_interrupted_pass_continues(em: EditableModel, config: StatsConfig, tmp_path: Path) -> None:
    expected = second_moments(em, SITES, config, Cache(tmp_path / "a"), Silent(), tokens_at_once=64)
    cache = Cache(tmp_path / "b")
    rows: list[int] = []

    def breaking(x: Tensor) -> None:
        if len(rows) == 3:
            raise StoppedError
        rows.append(len(x))

    def moments(cache: Cache) -> dict[Site, Moments]:
        return second_moments(em, SITES, config, cache, Silent(), tokens_at_once=64, save_every=0.0)

    with passes(em, breaking), pytest.raises(StoppedError):
        moments(cache)
    assert len(list(cache.entries("stats-partial"))) == 1
    after: list[int] = []
    with passes(em, lambda x: after.append(len(x))):
        found = moments(cache)
    total = len(token_rows(em, config, TOKENS, cache, Silent()))
    assert after and sum(after) < total
    for site in SITES:
        assert found[site].count == expected[site].count < TOKENS
        assert torch.equal(found[site].matrix, expected[site].matrix)
    assert not list(cache.entries("stats-partial"))


def test_the_key_changes_with_every_input(em: EditableModel, config: StatsConfig) -> None:
    corpus = corpus_key(config, em)
    base = stats_key(em, SITES[0], corpus, TOKENS)
    others = [
        stats_key(replace(em, weights="other"), SITES[0], corpus, TOKENS),
        stats_key(em, SITES[1], corpus, TOKENS),
        stats_key(em, SITES[0], corpus_key(StatsConfig(), em), TOKENS),
        stats_key(em, SITES[0], corpus_key(StatsConfig(seed=1), em), TOKENS),
        stats_key(em, SITES[0], corpus, TOKENS + 1),
    ]
    model: Any = em.model
    model.to(torch.float64)
    others.append(stats_key(em, SITES[0], corpus, TOKENS))
    model.to(torch.float32)
    assert stats_key(em, SITES[0], corpus, TOKENS) == base
    names = [Cache.path(Cache(Path()), "stats", key) for key in [base, *others]]
    assert len(set(names)) == len(names)


def test_the_model_is_left_as_it_was(em: EditableModel, config: StatsConfig, cache: Cache) -> None:
    before = em.weights_hash()
    second_moments(em, SITES, config, cache, Silent())
    assert em.weights_hash() == before
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in em.model.modules())


def test_generated_text_is_the_default(em: EditableModel, cache: Cache) -> None:
    found = second_moments(em, SITES[:1], StatsConfig(names=0), cache, Silent())
    rows = token_rows(em, StatsConfig(), needed_tokens(em, StatsConfig()), cache, Silent())
    assert found[SITES[0]].count == sum(len(row) - 1 for row in rows)
    values = torch.linalg.eigvalsh(found[SITES[0]].matrix.double())
    assert values.min() > -1e-6 * values.max()


def test_fewer_tokens_than_inputs_are_told(em: EditableModel, config: StatsConfig, cache: Cache) -> None:
    said: list[str] = []

    class Heard(Silent):
        def message(self, text: str) -> None:
            said.append(text)

    second_moments(em, SITES, config, cache, Heard())
    assert not any("say little" in text for text in said)
    for _ in range(2):  # the second time from the cache
        said.clear()
        second_moments(em, SITES, replace(config, tokens=5), cache, Heard())
        assert said[-1].startswith("4 tokens say little") and "--tokens 0" in said[-1]
    short = Path(config.corpus).with_name("short.txt")
    short.write_text("A few words.", encoding="utf-8")
    second_moments(em, SITES, StatsConfig(str(short), names=0), cache, Heard())
    assert "say little" in said[-1] and "a longer --corpus" in said[-1]


def test_list_and_clear(em: EditableModel, config: StatsConfig, cache: Cache) -> None:
    second_moments(em, SITES, config, cache, Silent())
    entries = cached_entries(cache)
    assert {e.site for e in entries} == {str(s) for s in SITES}
    assert {(e.identity, e.tokens) for e in entries} == {(em.identity, TOKENS)}
    assert {e.width for e in entries} == {em.d_in(s) for s in SITES}
    entries[0].path.write_bytes(b"damaged")
    cache.save("perplexity", {"model": "m"}, {"perplexity": torch.tensor(7.0)}, {})
    assert len(cached_entries(cache)) == len(SITES) - 1
    assert clear_entries(cache) == len(SITES)
    assert cached_entries(cache) == []
    assert list(cache.entries("perplexity")) == []
