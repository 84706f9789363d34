"""The corpus: text files, JSONL, data sets, and text the model writes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hubedit.cache import Cache
from hubedit.config import StatsConfig
from hubedit.edit import corpus as corpus_module
from hubedit.edit.corpus import corpus_key, holdout_rows, needed_tokens, token_rows
from hubedit.edit.documents import DataSet, documents
from hubedit.edit.sample import sample_documents
from hubedit.errors import ConfigError
from hubedit.model.editable import EditableModel
from hubedit.model.load import load
from hubedit.progress import Silent
from tests.pico import FAMILIES, SENTENCES, TokenizerKind, pico

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

    def start(self, stage: str, total: int | None = None, unit: str = "") -> None:
        self.now, self.done = (stage, total), 0

    def advance(self, amount: int = 1) -> None:
        self.done += amount

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


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_generates(make: Make, family: str) -> None:
    em = make(family)
    documents = sample_documents(em, rows=8, length=40, seed=1)
    assert sum(map(len, documents)) > 200
    assert len(documents) >= 8
    ids = [i for d in documents for i in d]
    assert set(ids).isdisjoint(em.eos_ids)


@pytest.mark.parametrize(
    ("family", "tokenizer"),
    [
        ("llama", "metaspace_bos"),
        ("gemma3_text", "metaspace_bos"),
        ("mistral", "byte_bpe"),
        ("gpt2", "byte_bpe"),
        ("gptj", "byte_bpe"),
    ],
)
def test_restarted_streams_do_not_see_the_document_before(
    make: Make, monkeypatch: pytest.MonkeyPatch, family: str, tokenizer: TokenizerKind
) -> None:
    """The distribution at every step is that of the document run alone."""
    em = make(family, tokenizer)
    # many tokens end a document, so that the stream restarts often
    ends = torch.arange(em.model.config.vocab_size) % 4 == 2
    ends[em.tokenizer.all_special_ids] = False
    monkeypatch.setattr("hubedit.edit.sample._ends", lambda em: ends)
    seen: list[torch.Tensor] = []
    draw = torch.multinomial

    def watched(p: torch.Tensor, *args: Any, **more: Any) -> torch.Tensor:
        seen.append(p[0].clone())
        return draw(p, *args, **more)

    monkeypatch.setattr(torch, "multinomial", watched)
    documents = sample_documents(em, rows=1, length=40, seed=3)
    assert len(documents) > 3
    expected: list[torch.Tensor] = []
    for document in documents:
        alone = document if em.has_bos else [em.tokenizer.bos_token_id, *document]
        logits = em.model(torch.tensor([alone])).logits[0].float()
        logits[:, em.tokenizer.all_special_ids] = -torch.inf
        logits[0, ends] = -torch.inf
        expected += list(logits.softmax(-1))
    # the last document is cut, so nothing was drawn after its last token
    torch.testing.assert_close(torch.stack(seen), torch.stack(expected[:-1]), atol=1e-5, rtol=1e-3)


def test_a_model_that_only_ends_still_gives_text(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    em = make("gpt2")
    eos = em.eos_ids[0]
    forward = em.model.forward

    def stops(*args: object, **kwargs: object) -> object:
        out = forward(*args, **kwargs)
        out.logits[..., eos] += 1e4
        return out

    monkeypatch.setattr(em.model, "forward", stops)
    documents = sample_documents(em, rows=4, length=32, seed=0)
    assert {len(d) for d in documents} == {1}
    assert len(documents) >= 4 * 16


def test_documents_begin_as_prompts_do(make: Make) -> None:
    em = make("mistral", "metaspace_bos")
    assert all(d[0] == em.tokenizer.bos_token_id for d in sample_documents(em, 4, 20, 0))
    seeded = sample_documents(em, 2, 20, 0, prompts=["The capital of", "Mount Everest"])
    for document, text in zip(seeded, ["The capital of", "Mount Everest"], strict=False):
        start = em.tokenizer(text)["input_ids"]
        assert document[: len(start)] == start


def test_a_tokenizer_without_start_gives_text(make: Make) -> None:
    em = make("qwen2")
    em.tokenizer.bos_token = em.tokenizer.eos_token = None
    em.model.config.bos_token_id = em.model.config.eos_token_id = None
    em.model.generation_config.eos_token_id = None
    documents = sample_documents(em, 6, 10, 0)
    assert [len(d) for d in documents] == [10] * 6
    assert len({d[0] for d in documents}) > 1


def test_generated_text_is_the_same_each_time_and_kept(
    make: Make, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus_module, "_LENGTH", 32)
    em, config = make(), StatsConfig(tokens=3000)
    first = token_rows(em, config, 3000, cache, Silent())
    assert sum(map(len, first)) == 3000
    assert token_rows(em, config, 3000, Cache(tmp_path / "other"), Silent()) == first
    assert token_rows(em, StatsConfig(seed=1), 3000, cache, Silent()) != first
    held = holdout_rows(em, config, 5, cache, Silent())
    assert len(held) == 5
    assert not {tuple(r) for r in held} & {tuple(r) for r in first}
    monkeypatch.setattr(corpus_module, "sample_documents", None)
    assert token_rows(em, config, 3000, cache, Silent()) == first
    assert token_rows(em, config, 100, cache, Silent())[0] == first[0][:100]
    assert holdout_rows(em, config, 5, cache, Silent()) == held


def test_text_that_is_written_is_told_and_text_from_the_cache_is_not(
    make: Make, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus_module, "_LENGTH", 32)
    em, config, stages = make(), StatsConfig(), Stages()
    token_rows(em, config, 500, cache, stages)
    holdout_rows(em, config, 5, cache, stages)
    assert stages.told == [("generating text", 500, 500), ("generating text to compare on", 5, 5)]
    token_rows(em, config, 300, cache, stages)
    holdout_rows(em, config, 3, cache, stages)
    assert len(stages.told) == 2
    # what was there already counts as done
    token_rows(em, config, 3000, cache, stages)
    assert stages.told[2] == ("generating text", 3000, 3000)


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


def test_rows_of_a_file(make: Make, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    em = make("mistral", "metaspace_bos")
    file = tmp_path / "text.txt"
    file.write_text("\n".join(SENTENCES))
    config = StatsConfig(str(file))
    rows = token_rows(em, config, 60, cache, Silent())
    assert rows[0] == em.tokenizer(SENTENCES[0])["input_ids"]
    assert sum(map(len, rows)) == 60
    monkeypatch.setattr(corpus_module, "_ROW", 5)
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


def test_held_out_rows_stand_behind_the_others(make: Make, cache: Cache, tmp_path: Path) -> None:
    em = make()
    file = tmp_path / "text.txt"
    file.write_text("\n".join(SENTENCES))
    config = StatsConfig(str(file), tokens=100)
    used = token_rows(em, config, 100, cache, Silent())
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
    pytest.importorskip("datasets")
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


def test_the_default_size_is_ten_times_the_widest_site(make: Make) -> None:
    em = make()
    assert needed_tokens(em, StatsConfig()) == 10 * max(em.d_in(s) for s in em.sites())
    assert needed_tokens(em, StatsConfig(tokens=7)) == 7
    with pytest.raises(ConfigError):
        needed_tokens(em, StatsConfig(tokens=-1))
