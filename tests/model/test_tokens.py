"""Where subjects and answers stand in tokens, for both kinds of tokenizers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from hubedit.errors import TokenError
from hubedit.model.join import joined
from hubedit.model.tokens import Prompt, continuation, decode, encode, locate, pad, preceded, token_ids
from tests.pico import TokenizerKind, tokenizers

KINDS: tuple[TokenizerKind, ...] = ("byte_bpe", "metaspace_bos")
TOKENIZERS = {kind: tokenizers(kind) for kind in KINDS}

PLACES = [
    ("France has the capital", "France"),
    ("The capital of France is", "France"),
    ("Tell me about France", "France"),
    ("The city (Paris), they say, is", "Paris"),
    ("Is it Paris?", "Paris"),
    ("Danielle Darrieux speaks", "Danielle Darrieux"),
    ("日本の首都は", "日本"),
    ("The 東京タワー is in", "東京タワー"),
    ("Столица России это", "России"),
    ("naïve Zoë is", "Zoë"),
    ("a 👩‍👧 b", "👩‍👧"),
    ("one\n\nFrance\nis", "France"),
]


def covered(tokenizer: PreTrainedTokenizerFast, prompt: Prompt) -> str:
    """The characters of the text under the subject's tokens."""
    offsets = tokenizer(prompt.text, return_offsets_mapping=True)["offset_mapping"]
    return prompt.text[offsets[prompt.first][0] : offsets[prompt.last][1]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("text", "subject"), PLACES)
def test_the_subjects_tokens_hold_the_subject(kind: TokenizerKind, text: str, subject: str) -> None:
    tokenizer = TOKENIZERS[kind]
    prompt = locate(tokenizer, text, subject)
    assert prompt.ids == tuple(tokenizer(text)["input_ids"])
    assert 0 <= prompt.first <= prompt.last < len(prompt.ids)
    assert subject in covered(tokenizer, prompt)
    assert len(covered(tokenizer, prompt)) <= len(subject) + 2
    if kind == "metaspace_bos":
        assert prompt.ids[0] == tokenizer.bos_token_id
        assert prompt.first >= 1


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    before=st.text("ab Tí日.(\"'", max_size=8),
    subject=st.text("Parisü東👧 -", min_size=1, max_size=8).filter(lambda s: bool(s.strip())),
    after=st.text(" isé,。?", max_size=6),
)
def test_any_subject_anywhere(kind: TokenizerKind, before: str, subject: str, after: str) -> None:
    tokenizer = TOKENIZERS[kind]
    text = before + subject + after
    prompt = locate(tokenizer, text, subject)
    offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    core = subject.strip()
    start = text.rfind(subject) + len(subject) - len(subject.lstrip())
    span = offsets[prompt.first : prompt.last + 1]
    assert core in text[span[0][0] : span[-1][1]]
    # neither neighbour holds a character of the subject
    for a, b in [*offsets[: prompt.first], *offsets[prompt.last + 1 :]]:
        assert a == b or b <= start or a >= start + len(core)


def test_the_last_occurrence_counts() -> None:
    tokenizer = TOKENIZERS["byte_bpe"]
    prompt = locate(tokenizer, "Paris is Paris, and Paris is", "Paris")
    assert decode(tokenizer, prompt.ids[prompt.last + 1 :]) == " is"


def test_a_token_that_reaches_past_the_subject_belongs_to_it() -> None:
    vocab = {word: i for i, word in enumerate(["[UNK]", "▁It", "▁is", "▁Paris?"])}
    raw = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Metaspace()
    make: Any = PreTrainedTokenizerFast
    prompt = locate(make(tokenizer_object=raw), "It is Paris?", "Paris")
    assert (prompt.ids, prompt.first, prompt.last) == ((1, 2, 3), 2, 2)


def test_every_byte_of_a_character_belongs_to_it() -> None:
    prompt = locate(TOKENIZERS["metaspace_bos"], "in 鑫 is", "鑫")
    assert prompt.last - prompt.first >= 2  # three bytes


@pytest.mark.parametrize(
    ("text", "subject", "says"),
    [
        ("The capital", "France", "not in the prompt"),
        ("The capital", " ", "empty"),
        ("The capital", "", "empty"),
        ("the Capital", "capital", "not in the prompt"),
        ("bad \ud800 text", "bad", "Unicode"),
    ],
)
def test_what_cannot_be_placed(text: str, subject: str, says: str) -> None:
    with pytest.raises(TokenError, match=says):
        locate(TOKENIZERS["byte_bpe"], text, subject)


def test_encode() -> None:
    assert encode(TOKENIZERS["metaspace_bos"], "").ids == (1,)
    with pytest.raises(TokenError, match="no tokens"):
        encode(TOKENIZERS["byte_bpe"], "")
    prompt = encode(TOKENIZERS["byte_bpe"], "The capital")
    assert (prompt.first, prompt.last) == (-1, -1)


@pytest.mark.parametrize("kind", KINDS)
def test_many_texts_at_once_give_what_each_gives(kind: TokenizerKind) -> None:
    texts = [text for text, _ in PLACES]
    assert token_ids(TOKENIZERS[kind], texts) == [encode(TOKENIZERS[kind], t).ids for t in texts]
    assert token_ids(TOKENIZERS[kind], []) == []
    with pytest.raises(TokenError, match="not valid Unicode"):
        token_ids(TOKENIZERS[kind], ["fine", "\ud800"])


def test_an_end_token_that_the_tokenizer_appends_is_left_out() -> None:
    tokenizer = tokenizers("metaspace_bos")
    plain = encode(tokenizer, "The capital").ids
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    assert tokenizer("The capital")["input_ids"][-1] == 2
    assert encode(tokenizer, "The capital").ids == plain
    assert 2 not in continuation(tokenizer, "The capital", "city")


ANSWERS = [
    ("The capital of France is", "Paris"),
    ("The capital of France is", " Paris"),
    ("The capital of France is ", "Paris"),
    ('He said "', "Rome"),
    ("The city (", "Rome"),
    ("日本の首都は", "東京"),
    ("The capital of Japan is", "東京"),
    ("Столица это", "Москва"),
    ("one\n", "two"),
    ("What?", "William Shakespeare."),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("text", "answer"), ANSWERS)
def test_the_continuation_follows_the_prompts_own_tokens(kind: TokenizerKind, text: str, answer: str) -> None:
    tokenizer = TOKENIZERS[kind]
    ids = continuation(tokenizer, text, answer)
    assert ids
    assert tokenizer.bos_token_id not in ids
    assert decode(tokenizer, encode(tokenizer, text).ids + ids) == joined(text, answer)


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    text=st.text("The capí日 (\"'.", min_size=1, max_size=12).filter(lambda t: bool(t.strip())),
    answer=st.text("Paris東 -ü", min_size=1, max_size=8).filter(lambda a: bool(a.strip())),
)
def test_any_continuation_reads_as_the_joined_text(kind: TokenizerKind, text: str, answer: str) -> None:
    tokenizer = TOKENIZERS[kind]
    ids = continuation(tokenizer, text, answer)
    whole = encode(tokenizer, joined(text, answer)).ids
    assert decode(tokenizer, encode(tokenizer, text).ids + ids) == decode(tokenizer, whole)


def test_a_blank_answer_is_refused() -> None:
    with pytest.raises(TokenError, match="empty"):
        continuation(TOKENIZERS["byte_bpe"], "The capital is", "  ")


@pytest.mark.parametrize(
    "text",
    ["<s>The capital", "<s>", "<s><s>The capital", "<s> <unk>The", "</s>The capital", "The <s> capital"],
)
def test_a_text_that_begins_with_bos_gets_no_second_one(text: str) -> None:
    tokenizer = TOKENIZERS["metaspace_bos"]
    written = tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
    assert encode(tokenizer, text).ids == (written if text.startswith("<s>") else (1, *written))


def test_a_prefix_of_several_tokens_is_not_doubled_either() -> None:
    tokenizer = tokenizers("metaspace_bos")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> <pad> $A", special_tokens=[("<s>", 1), ("<pad>", 3)]
    )
    assert encode(tokenizer, "<s><pad>The").ids.count(3) == 1
    assert encode(tokenizer, "<s>The").ids[:3] == (1, 3, 1)


def test_a_context_goes_behind_the_texts_own_bos() -> None:
    tokenizer = TOKENIZERS["metaspace_bos"]
    assert preceded(tokenizer, "Well. ", "<s>The capital") == "<s>Well. The capital"
    assert preceded(tokenizer, "Well. ", "The capital") == "Well. The capital"
    assert encode(tokenizer, preceded(tokenizer, "Well. ", "<s>The")).ids.count(1) == 1


def test_padding_is_on_the_right() -> None:
    batch = pad([(5, 6, 7), (8,)], 9)
    assert batch.ids.tolist() == [[5, 6, 7], [8, 9, 9]]
    assert batch.mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch.lengths.tolist() == [3, 1]
    assert batch.ids.dtype == batch.mask.dtype == batch.lengths.dtype == torch.long
    for nothing in ([], [()]):
        with pytest.raises(ValueError, match="empty"):
            pad(nothing, 0)
