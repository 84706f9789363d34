"""A merged model's tokenizer is one that older readers load too, and says the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from hubedit.checkpoint.merge import merge
from hubedit.checkpoint.revert import revert
from hubedit.checkpoint.tokenizer import TOKENIZER, readable
from hubedit.demo import model_path
from hubedit.errors import CheckpointError
from hubedit.model.fetch import find
from hubedit.patch import Patch
from tests.checkpoint.tiny import local, patch, tiny
from tests.pico import TokenizerKind, pico, tokenizers

NEW = '{"tokenizer_class": "TokenizersBackend", "backend": "tokenizers", "extra_special_tokens": ["<a>"]}'
TEXTS = ["The capital of France is Paris.", " two  spaces, 東京\n", "<|user|>x<|end|>"]


def read(folder: Path) -> Any:
    auto: Any = AutoTokenizer
    return auto.from_pretrained(folder)


@pytest.mark.parametrize("kind", ["byte_bpe", "metaspace_bos"])
@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_it_is_read_as_before(tmp_path: Path, family: str, kind: TokenizerKind) -> None:
    folder = pico(family, tmp_path / "m", kind)
    words: Any = tokenizers(kind)
    words.add_special_tokens({"additional_special_tokens": ["<|user|>", "<|end|>"]})
    words.save_pretrained(folder)
    before = read(folder)
    wanted = [before(text)["input_ids"] for text in TEXTS]
    new = readable((folder / TOKENIZER).read_bytes())
    assert new is not None
    (folder / TOKENIZER).write_bytes(new)
    after = read(folder)
    assert [after(text)["input_ids"] for text in TEXTS] == wanted
    assert sorted(after.all_special_ids) == sorted(before.all_special_ids)
    assert json.loads(new)["tokenizer_class"] == "PreTrainedTokenizerFast"
    # transformers 4 expects a table there
    assert "extra_special_tokens" not in json.loads(new)
    assert readable(new) is None


@pytest.mark.parametrize("text", ['{"tokenizer_class": "LlamaTokenizerFast"}', "{}", "[]"])
def test_what_every_reader_loads_stays_as_it_is(text: str) -> None:
    assert readable(text.encode()) is None


def test_a_damaged_file_is_one_line() -> None:
    with pytest.raises(CheckpointError, match="is not JSON"):
        readable(b"{")


@pytest.mark.parametrize("keep", [True, False])
def test_a_merge_writes_it_and_a_revert_gives_the_bases_own_back(tmp_path: Path, keep: bool) -> None:
    from hubedit.checkpoint.merge import MergeOptions

    base = tiny(tmp_path / "m", more={TOKENIZER: NEW})
    one: Patch = patch(base)
    done = merge([one], local(base), tmp_path / "out", MergeOptions(keep_originals=keep))
    assert json.loads((done.path / TOKENIZER).read_text()) == {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "additional_special_tokens": ["<a>"],
    }
    assert (base / TOKENIZER).read_text() == NEW
    revert(done.path, base=None if keep else local(base))
    assert (done.path / TOKENIZER).read_text() == NEW
    assert not (done.path / "originals").exists()


def test_the_bundled_model_is_read_by_all() -> None:
    assert readable((model_path() / TOKENIZER).read_bytes()) is None
    assert find(str(model_path())).folder == model_path()
