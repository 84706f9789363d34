"""A model whose files were damaged loads, or is refused in one line: transformers may raise anything."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hubedit.errors import HubEditError, ModelError
from hubedit.facts.tokens import load_tokenizer
from hubedit.model.load import load
from hubedit.model.reading import reading
from hubedit.plan import skeleton
from tests.damage import cases, outcome

CONFIG, TOKENS, SETTINGS, GENERATION = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
)


@pytest.fixture
def folder(pico_path: Callable[..., Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(pico_path(), tmp_path / "model"))


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.mark.parametrize(
    ("file", "values"),
    [
        (CONFIG, {"hidden_act": {}}),
        (CONFIG, {"vocab_size": None}),
        (CONFIG, {"num_attention_heads": "x"}),
        (CONFIG, {"num_local_experts": "many", "hidden_size": []}),
        (TOKENS, {"normalizer": {"type": "NoSuch"}}),
        (TOKENS, {"decoder": 1e308}),
        (TOKENS, {"model": {}}),
        (SETTINGS, {"model_max_length": {}}),
        (SETTINGS, {"model_max_length": "x"}),
    ],
)
def test_settings_that_mean_nothing(folder: Path, file: str, values: dict[str, Any]) -> None:
    change(folder / file, **values)
    for look in (load, skeleton) if file == CONFIG else (load, skeleton, load_tokenizer):
        with pytest.raises(HubEditError) as caught:
            look(str(folder))
        assert len(caught.value.message.splitlines()) == 1 and caught.value.hint
        assert len(caught.value.message) < 1000


@pytest.mark.parametrize("ends", ["x", {}, [[]], [None]])
def test_an_end_of_text_that_is_no_token(folder: Path, ends: Any) -> None:
    change(folder / GENERATION, eos_token_id=ends)
    with pytest.raises(ModelError, match=r"do not go together|cannot load"):
        load(str(folder))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": ' + "9" * 5000 + "}", '{"a": \ud800}'])
@pytest.mark.parametrize("file", [CONFIG, SETTINGS])
def test_json_that_python_cannot_read(folder: Path, file: str, text: str) -> None:
    (folder / file).write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ModelError, match="is not valid JSON") as caught:
        load(str(folder))
    assert len(caught.value.message.splitlines()) == 1


def test_out_of_memory_stays_what_it_is() -> None:
    with pytest.raises(MemoryError), reading("cannot load"):
        raise MemoryError
    with pytest.raises(RuntimeError, match="can't allocate"), reading("cannot load"):
        raise RuntimeError("[enforce fail] can't allocate memory")
    with pytest.raises(ModelError, match="cannot load: a b"), reading("cannot load"):
        raise Exception("a\n b")


def test_a_panic_of_rust_code_is_an_error_like_others() -> None:
    """What tokenizers raises for lengths that are out of range; Ctrl-C stays what it is."""
    panic = type("PanicException", (BaseException,), {})
    with pytest.raises(ModelError, match="cannot load: range end index"), reading("cannot load"):
        raise panic("range end index 5 out of range")
    with pytest.raises(KeyboardInterrupt), reading("cannot load"):
        raise KeyboardInterrupt


def test_any_damage_is_refused_or_harmless(folder: Path) -> None:
    worked = [
        outcome(lambda: load(str(folder)))
        for _ in cases(folder, (CONFIG, TOKENS, SETTINGS, GENERATION), 5, 60)
    ]
    assert 0 < sum(worked) < len(worked)
