from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from hubedit.cache import Cache
from hubedit.config import EditConfig, StatsConfig
from hubedit.edit.statistics.second_moments import second_moments, source_key
from hubedit.edit.statistics.size import corpus_tokens, name_rows
from hubedit.errors import ConfigError
from hubedit.model.editable import EditableModel
from hubedit.model.load import load
from hubedit.model.sites import Site
from hubedit.name_sentences import kinds, sentences
from hubedit.presets import METHODS, check_settings
from hubedit.progress import Silent
from tests.pico import pico


@pytest.fixture
def em(tmp_path: Path) -> EditableModel:
    return load(str(pico("qwen2", tmp_path / "model")), device="cpu")


def test_every_name_stands_in_every_sentence_of_its_kind_once() -> None:
    wanted = Counter(text.format(name) for own, names in kinds() for text in own for name in names)
    assert Counter(sentences()) == wanted
    assert max(wanted.values()) == 1


def test_every_kind_is_there_from_the_first_sentences_on() -> None:
    first = [text for text, _ in zip(sentences(), range(10 * len(kinds())), strict=False)]
    for own, names in kinds():
        known = {text.format(name) for text in own for name in names}
        assert len(known & set(first)) >= 10, own


def test_the_share_of_names_decides_what_the_statistics_read(em: EditableModel, tmp_path: Path) -> None:
    def rows(names: float) -> tuple[int, int]:
        """Tokens of sentences, and of the corpus."""
        config = StatsConfig(tokens=400, names=names)
        return sum(map(len, name_rows(em, config))), corpus_tokens(em, config)

    assert rows(0) == (0, 400)
    named, written = rows(0.5)
    assert 200 <= named < 230 and written == 400 - named
    assert rows(1)[1] == 0


def test_a_list_that_ends_leaves_the_rest_to_the_corpus(em: EditableModel) -> None:
    every = sum(len(row) for row in em.tokenizer(list(sentences()))["input_ids"])
    config = StatsConfig(tokens=10 * every, names=0.9)
    assert sum(map(len, name_rows(em, config))) == every
    assert corpus_tokens(em, config) == 9 * every


def test_nothing_is_written_where_the_statistics_are_of_names_alone(
    em: EditableModel, tmp_path: Path
) -> None:
    site = Site(0, "mlp")
    for names, rounds in ((1, 0), (0.5, 1)):
        cache, config = Cache(tmp_path / str(names)), StatsConfig(tokens=400, names=names)
        found = second_moments(em, [site], config, cache, Silent())[site]
        assert found.count == sum(len(row) - 1 for row in name_rows(em, config)) or names < 1
        assert len(list(cache.entries("corpus"))) == rounds
    assert source_key(StatsConfig(names=1), em) != source_key(StatsConfig(names=0.5), em)


def test_a_published_method_reads_text_alone() -> None:
    with pytest.raises(ConfigError, match="memit reads text alone"):
        check_settings(EditConfig(method="memit"))
    assert all(METHODS[name].defaults.stats.names == 0 for name in METHODS if METHODS[name].published)
