"""Facts against a tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hubedit.errors import ModelError
from hubedit.facts import Fact, Probe, check_tokens
from hubedit.facts.tokens import LONG_TARGET, load_tokenizer, long_targets
from tests.pico import TokenizerKind, tokenizers

FAST: Callable[..., PreTrainedTokenizerFast] = PreTrainedTokenizerFast  # its constructor has no types
WORDS = ["<unk>", "The", "capital", "of", "Peru", "is", "Cusco"]


def word_level(longest: int = 100) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return FAST(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        model_max_length=longest,
        clean_up_tokenization_spaces=False,
    )


FACT = Fact("The capital of Peru is", "Peru", "Cusco", line=3)


def test_a_good_fact() -> None:
    assert check_tokens([FACT], word_level()) == []


def test_every_problem_is_found() -> None:
    other = Fact("The capital of Chile is", "Chile", "Lima", locality=(Probe("Peru is", ("Inca",)),), line=9)
    found = check_tokens([FACT, other], word_level(), "facts.jsonl")
    assert [problem.split(": ")[0] for problem in found] == ["facts.jsonl:9"] * 3
    assert 'subject "Chile"' in found[0]
    assert 'target "Lima"' in found[1]
    assert 'locality answer "Inca"' in found[2]


def test_the_longest_input() -> None:
    found = check_tokens([FACT], word_level(5))
    assert found == ["facts:3: prompt and target have 6 tokens, the model takes 5; shorten the prompt"]


def test_a_fact_made_in_memory_has_a_number() -> None:
    assert check_tokens([Fact("The of", "capital", "Cusco")], word_level())[0].startswith("facts: fact 1: ")


@pytest.mark.parametrize("kind", ["byte_bpe", "metaspace_bos"])
def test_any_script_and_place_of_the_subject(kind: TokenizerKind) -> None:
    facts = [
        Fact("Paris is in", "Paris", "Italy"),
        Fact("The capital of the land (France), today, is", "France", "New York"),
        Fact('Who wrote "Hamlet"?', "Hamlet", "O'Neill"),
    ]
    foreign = [Fact("日本の首都は", "日本", "大阪"), Fact("Столица России —", "России", "Омск")]
    tokenizer = tokenizers(kind)
    assert check_tokens(facts, tokenizer) == []
    if kind == "byte_bpe":  # the other one has no bytes to fall back on
        assert check_tokens(foreign, tokenizer) == []


def test_long_targets_are_told() -> None:
    longest = replace(FACT, target="Cusco " * (LONG_TARGET - 1))
    longer = replace(FACT, target=f"{longest.target}is", line=0)
    assert long_targets([FACT, longest], word_level(999)) == []
    (told,) = long_targets([FACT, longer], word_level(999), "f.jsonl")
    assert told.startswith(f"f.jsonl: fact 2: the target has {LONG_TARGET} tokens")


def test_load_tokenizer(tmp_path: Path) -> None:
    word_level().save_pretrained(tmp_path / "model")
    assert check_tokens([FACT], load_tokenizer(str(tmp_path / "model"))) == []
    with pytest.raises(ModelError):
        load_tokenizer(str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError):
        load_tokenizer(str(tmp_path / "empty"))
