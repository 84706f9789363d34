from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from hubedit.cache import Cache
from hubedit.config import StatsConfig
from hubedit.edit.statistics.second_moments import second_moments, source_key
from hubedit.model.editable import EditableModel
from hubedit.model.load import load
from hubedit.model.sites import Site
from hubedit.names import kinds, sentences
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
    site, cache = Site(0, "mlp"), Cache(tmp_path / "cache")

    def moment(names: float) -> tuple[torch.Tensor, int]:
        found = second_moments(em, [site], StatsConfig(tokens=400, names=names), cache, Silent())[site]
        return found.matrix, found.count

    none, half, only = moment(0), moment(0.5), moment(1)
    assert not torch.equal(none[0], half[0]) and not torch.equal(half[0], only[0])
    assert source_key(StatsConfig(names=1), em) != source_key(StatsConfig(names=0.5), em)
    # nothing is written by a model whose statistics are of names alone
    assert moment(1)[1] == only[1]
