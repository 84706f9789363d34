"""The corpus: text files, JSONL, data sets, and text the model writes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hubedit.cache import Cache
from hubedit.config import StatsConfig
from hubedit.documents import DataSet, documents
from hubedit.edit.statistics.corpus import corpus_key, holdout_rows, token_rows
from hubedit.edit.statistics.size import TOKENS_PER_INPUT, corpus_tokens, needed_tokens
from hubedit.errors import ConfigError
from hubedit.model.editable import EditableModel
from hubedit.model.load import load
from hubedit.progress import Silent
from tests.pico import SENTENCES, TokenizerKind, pico
from tests.watching import no_pass

Make = Callable[..., EditableModel]


class Notices(Silent):
    """Keeps the messages."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def message(self, text: str) -> None:
        self.texts.append(text)


class Stages(Silent):
    """Every finished stage: its name, and how much of it was expected and done."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int | None, int]] = []
        self.amounts: list[int] = []

    def start(self, stage: str, total: int | None = None, unit: str = "") -> None:
        self.now, self.done = (stage, total), 0

    def advance(self, amount: int = 1) -> None:
        self.done += amount
        self.amounts.append(amount)

    def finish(self, note: str = "") -> None:
        self.told.append((*self.now, self.done))


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def build(family: str = "qwen2", tokenizer: TokenizerKind = "byte_bpe") -> EditableModel:
        return load(str(pico(family, tmp_path / f"{family}-{tokenizer}", tokenizer)), device="cpu")

    return build


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def test_generated_text_is_the_same_each_time_and_kept(make: Make, cache: Cache, tmp_path: Path) -> None:
    em, config = make(), StatsConfig(tokens=3000)
    em.text_config.max_position_embeddings = 32  # shorter texts
    first = token_rows(em, config, 3000, cache, Silent())
    assert sum(map(len, first)) == 3000
    assert token_rows(em, config, 3000, Cache(tmp_path / "other"), Silent()) == first
    assert token_rows(em, StatsConfig(seed=1), 3000, cache, Silent()) != first
    held = holdout_rows(em, config, 5, cache, Silent())
    assert len(held) == 5
    assert not {tuple(r) for r in held} & {tuple(r) for r in first}
    with no_pass(em):
        assert token_rows(em, config, 3000, cache, Silent()) == first
        assert token_rows(em, config, 100, cache, Silent())[0] == first[0][:100]
        assert holdout_rows(em, config, 5, cache, Silent()) == held


def test_text_that_is_written_is_told_and_text_from_the_cache_is_not(make: Make, cache: Cache) -> None:
    em, config, stages = make(), StatsConfig(), Stages()
    em.text_config.max_position_embeddings = 32
    token_rows(em, config, 500, cache, stages)
    holdout_rows(em, config, 5, cache, stages)
    # a whole round is written, and shown, where fewer tokens are needed
    assert stages.told == [("generating text", 2048, 2048), ("generating text to compare on", 1024, 1024)]
    # work is shown as it is done: a round's texts are only read when it ends
    assert all(amount in (64, 32) for amount in stages.amounts) and len(stages.amounts) > 30
    token_rows(em, config, 300, cache, stages)
    holdout_rows(em, config, 3, cache, stages)
    assert len(stages.told) == 2
    # what was there already counts as done; the start of a document is written and is no text
    token_rows(em, config, 3000, cache, stages)
    name, total, shown = stages.told[2]
    assert (name, total) == ("generating text", 4096) and 4000 < shown < 4096


def test_text_files(tmp_path: Path) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_text("one\ntwo\n\n\n")
    assert list(documents(str(lines))) == ["one", "two"]
    paragraphs = tmp_path / "paragraphs.txt"
    paragraphs.write_text("one\nmore\n\ntwo\n \nthree")
    assert list(documents(str(paragraphs))) == ["one more", "two", "three"]
    records = tmp_path / "records.jsonl"
    records.write_text('{"text": "één", "id": 1}\n\n{"text": "two"}\n')
    assert list(documents(str(records))) == ["één", "two"]


def test_rows_of_a_file(make: Make, cache: Cache, tmp_path: Path) -> None:
    em = make("mistral", "metaspace_bos")
    file = tmp_path / "text.txt"
    file.write_text("\n".join(SENTENCES))
    config = StatsConfig(str(file))
    rows = token_rows(em, config, 60, cache, Silent())
    assert rows[0] == em.tokenizer(SENTENCES[0])["input_ids"]
    assert sum(map(len, rows)) == 60
    em.text_config.max_position_embeddings = 5
    cut = token_rows(em, config, 60, cache, Silent())
    assert max(map(len, cut)) == 5
    assert {row[0] for row in cut} == {em.tokenizer.bos_token_id}


def test_a_short_corpus_gives_what_it_has(make: Make, cache: Cache, tmp_path: Path) -> None:
    em, notices = make(), Notices()
    file = tmp_path / "text.txt"
    file.write_text("The capital of France is Paris.")
    rows = token_rows(em, StatsConfig(str(file)), 10_000, cache, notices)
    assert rows == [em.tokenizer("The capital of France is Paris.")["input_ids"]]
    assert f"{len(rows[0])} tokens of the 10000" in notices.texts[0]
    assert holdout_rows(em, StatsConfig(str(file)), 3, cache, notices) == rows


@pytest.mark.parametrize("names", [0, 0.5])
def test_held_out_rows_stand_behind_the_others(
    make: Make, cache: Cache, tmp_path: Path, names: float
) -> None:
    em = make()
    file = tmp_path / "text.txt"
    file.write_text("\n".join(SENTENCES))
    config = StatsConfig(str(file), tokens=100, names=names)
    used = token_rows(em, config, corpus_tokens(em, config), cache, Silent())
    held = holdout_rows(em, config, 4, cache, Silent())
    assert held[0] == em.tokenizer(SENTENCES[len(used)])["input_ids"]
    assert len(held) == 4


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.txt", None, "does not exist"),
        ("empty.txt", b"\n \n", "holds no text"),
        ("bad.jsonl", b'{"text": "a"}\n{"body": "b"}\n', "bad.jsonl:2"),
        ("broken.jsonl", b'{"text": "a"\n', "broken.jsonl:1"),
        ("number.jsonl", b'{"text": 3}\n', "is not a string"),
        ("latin.txt", "caf\xe9".encode("latin-1"), "not UTF-8"),
    ],
)
def test_files_that_cannot_be_used(
    make: Make, cache: Cache, tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        token_rows(make(), StatsConfig(str(file)), 100, cache, Silent())


def test_data_set_names() -> None:
    assert DataSet.parse("wikimedia/wikipedia/20231101.en@abc:text") == DataSet(
        "wikimedia/wikipedia", "20231101.en", "abc", "text"
    )
    assert DataSet.parse("owner/name") == DataSet("owner/name")


def test_a_data_set_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match=r"hubedit\[datasets\]"):
        next(documents("owner/name"))


def test_a_folder_as_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    # the newest one wants a newer huggingface-hub than the oldest that hubedit allows
    pytest.importorskip("datasets", exc_type=ImportError)
    folder = tmp_path / "data"
    folder.mkdir()
    records = [{"title": "t", "body": text} for text in SENTENCES[:3]]
    (folder / "train.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    assert list(documents(f"{folder}:body")) == SENTENCES[:3]
    with pytest.raises(ConfigError, match="no column 'text'"):
        next(documents(str(folder)))
    with pytest.raises(ConfigError, match="no text column 'other'"):
        next(documents(f"{folder}:other"))


def test_the_key_names_the_content(make: Make, tmp_path: Path) -> None:
    em = make()
    file = tmp_path / "text.txt"
    file.write_text("one")
    before = corpus_key(StatsConfig(str(file)), em)
    copy = tmp_path / "copy.txt"
    copy.write_text("one")
    assert corpus_key(StatsConfig(str(copy)), em) == before
    file.write_text("two")
    assert corpus_key(StatsConfig(str(file)), em) != before
    assert corpus_key(StatsConfig(seed=1), em) != corpus_key(StatsConfig(), em)
    assert corpus_key(StatsConfig(tokens=5), em) == corpus_key(StatsConfig(), em)


def test_the_default_size_follows_the_widest_site(make: Make) -> None:
    em = make()
    assert needed_tokens(em, StatsConfig()) == TOKENS_PER_INPUT * max(em.d_in(s) for s in em.sites())
    assert needed_tokens(em, StatsConfig(tokens=7)) == 7
    with pytest.raises(ConfigError):
        needed_tokens(em, StatsConfig(tokens=-1))
