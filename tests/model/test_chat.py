"""Chat templates: a message and its answer become the tokens that the template gives a conversation."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from hubedit.errors import ConfigError
from hubedit.facts import Fact
from hubedit.model.chat import chat_of, markers
from hubedit.model.editable import EditableModel
from hubedit.model.forms import (
    COMPLETION,
    answer_end,
    as_message,
    as_question,
    forms_of,
    greedy_answers,
    put,
    worded,
)
from hubedit.model.generate import greedy
from hubedit.model.instruct import choose, instructed
from hubedit.model.join import joined, templated
from hubedit.model.tokens import continuation, encode, locate
from tests.pico import tokenizers

Editable = Callable[..., EditableModel]

LINES = """{% for m in messages %}<|{{ m['role'] }}|>
{{ m['content'] }}{{ eos_token }}
{% endfor %}{% if add_generation_prompt %}<|assistant|>
{% endif %}"""
SPACES = """{{ bos_token }}{% for m in messages %}{% set user = m['role'] == 'user' %}
{%- if user %}[INST] {{ m['content'] }} [/INST]
{%- else %} {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"""
GLUED = """{{ bos_token }}{% for m in messages %}<{{ m['role'] }}>{{ m['content'] | trim }}</s>{% endfor %}
{%- if add_generation_prompt %}<assistant>{% endif %}"""
WITHOUT_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}" + LINES
THINKING = LINES.replace(
    "<|assistant|>\n{% endif %}",
    "<|assistant|>\n{% if enable_thinking is defined and not enable_thinking %}<think></think>\n"
    "{% endif %}{% endif %}",
)

KINDS = ("byte level", "metaspace first", "metaspace always")
MATRIX = tuple(product(KINDS, (False, True), ("left", "right"), (False, True), (LINES, SPACES, GLUED)))


@cache
def tokenizer(kind: str, bos: bool, side: str, pad: bool, template: str) -> PreTrainedTokenizerFast:
    """One of the matrix: how words begin, whether a BOS is put in front, padding, and a chat template."""
    base = tokenizers("byte_bpe" if kind == "byte level" else "metaspace_bos")
    data = json.loads(base.backend_tokenizer.to_str())
    first = base.bos_token_id
    if kind != "byte level":
        data["pre_tokenizer"]["prepend_scheme"] = kind.removeprefix("metaspace ")
    data["post_processor"] = None
    if bos:
        token = str(base.bos_token)
        data["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": token, "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
            ],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {token: {"id": token, "ids": [first], "tokens": [token]}},
        }
    make: Any = PreTrainedTokenizerFast
    made: PreTrainedTokenizerFast = make(
        tokenizer_object=Tokenizer.from_str(json.dumps(data)),
        bos_token=base.bos_token,
        eos_token=base.eos_token,
        pad_token=base.pad_token if pad else None,
        padding_side=side,
    )
    made.chat_template = template
    return made


WORDS = st.lists(
    st.sampled_from("The capital of Japan is Kyoto Paris 1980 é 東京 Who wrote Hamlet ? , a".split()),
    min_size=1,
    max_size=6,
).map(" ".join)


@given(st.sampled_from(MATRIX), WORDS, WORDS)
def test_a_message_and_its_answer_have_the_tokens_of_the_conversation(
    key: tuple[str, bool, str, bool, str], question: str, answer: str
) -> None:
    made = tokenizer(*key)
    chat = chat_of(made)
    prompt = chat.message(question)
    ids = encode(made, prompt).ids
    render: Any = made.apply_chat_template
    user = {"role": "user", "content": question}
    turn = {"role": "assistant", "content": answer}
    assert prompt == render([user], tokenize=False, add_generation_prompt=True)
    whole = render([user, turn], tokenize=False)
    assert whole.startswith(joined(prompt, answer, None, made))
    # the conversation as whoever serves the model tokenises it: the template has written every BOS
    assert list(ids) == made(prompt, add_special_tokens=False)["input_ids"]
    found = [*ids, *continuation(made, prompt, answer)]
    served = made(whole, add_special_tokens=False)["input_ids"]
    if served[: len(ids)] == list(ids):
        assert found == served[: len(found)]
        ends = made.all_special_ids  # byte level, "</s>" is no token but four
        assert (chat.end is None) is (key[4] == GLUED and key[0] == "byte level")
        assert chat.end == next((token for token in served[len(found) :] if token in ends), None)
    text = made.decode(found, clean_up_tokenization_spaces=False)
    assert text == made.decode(served[: len(found)], clean_up_tokenization_spaces=False)
    begins = [n for n, token in enumerate(found[:2]) if token == made.bos_token_id]
    assert begins == ([0] if key[4].startswith("{{ bos_token }}") else [])


@torch.no_grad()
@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_those_of_one_conversation_at_a_time(kind: str, bos: bool, editable: Editable) -> None:
    em = editable(*(("qwen2", "byte_bpe") if kind == "byte level" else ("llama", "metaspace_bos")))
    model: Any = em.model
    questions = ("Who?", "What is the capital of Japan, and who wrote Hamlet?", "Is it Kyoto?")
    for template in (LINES, SPACES, GLUED):
        made = tokenizer(kind, bos, "right", True, template)
        alone = []
        for text in map(chat_of(made).message, questions):
            ids = torch.tensor([made(text, add_special_tokens=False)["input_ids"]])
            found = model.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=6, pad_token_id=0
            )
            alone.append(str(made.decode(found[0, ids.shape[1] :], skip_special_tokens=True)).strip())
        for side, pad in product(("left", "right"), (False, True)):
            made = tokenizer(kind, bos, side, pad, template)
            talking = replace(em, tokenizer=made, chat=chat_of(made))
            said = greedy(talking, [as_message(talking, text) for text in questions], 6)
            assert [text.strip() for text in said] == alone


def test_the_template_is_rendered_once(editable: Editable) -> None:
    made = tokenizer("byte level", False, "right", True, LINES)
    assert markers(made) is markers(made)
    kept = markers(made)
    made.chat_template = GLUED
    assert markers(made) is not kept
    made.chat_template = LINES


@pytest.mark.parametrize("template", [LINES, SPACES, GLUED])
def test_a_message_is_recognised_and_kept(template: str) -> None:
    made = tokenizer("metaspace first", True, "right", True, template)
    message = chat_of(made).message("Who wrote Hamlet?")
    assert templated(made, message)
    assert templated(made, f"<s>{message}".replace("<s><s>", "<s>"))
    assert not templated(made, "Who wrote Hamlet?")


def test_only_conversations_go_without_the_tokenizers_own_bos() -> None:
    made = tokenizer("metaspace first", True, "right", True, LINES)
    begin = made.bos_token_id
    chat, told = chat_of(made), chat_of(made, "Be brief.")
    for text, first in (
        ("Hi", True),
        (chat.message("Hi"), False),
        (told.message("Hi"), False),
        (f"<s>{chat.message('Hi')}", True),
        ("Say <|user|>", True),
    ):
        assert (encode(made, text).ids[0] == begin) is first
        assert encode(made, text).ids[1] != begin
    assert all(templated(made, text) for text in (told.message("Hi"), f"<s>{told.message('Hi')}"))


def test_a_system_prompt_stands_in_front_or_is_refused() -> None:
    made = tokenizer("byte level", False, "right", True, LINES)
    assert chat_of(made, "Be brief.").message("Hi").startswith("<|system|>\nBe brief.")
    for template, words in ((WITHOUT_SYSTEM, "takes no system prompt"), (SPACES, "leaves the system prompt")):
        other = tokenizer("byte level", False, "right", True, template)
        if template == SPACES:
            other.chat_template = SPACES.replace("{%- else %}", "{%- elif m['role'] == 'assistant' %}")
        with pytest.raises(ConfigError, match=words):
            chat_of(other, "Be brief.")


def test_a_thinking_phase_is_left_out() -> None:
    made = tokenizer("byte level", False, "right", True, THINKING)
    assert chat_of(made).message("Hi").endswith("<|assistant|>\n<think></think>\n")
    # a prompt that somebody wrote with the phase open is recognised too
    assert templated(made, "Hi<|endoftext|>\n<|assistant|>\n")


@pytest.fixture
def talking(editable: Editable) -> EditableModel:
    """A tiny model with a chat template of its own, in use."""
    em = editable("llama", "metaspace_bos")
    made = tokenizer("metaspace first", True, "right", True, LINES)
    return replace(em, tokenizer=made, chat=chat_of(made))


def test_forms_of_a_prompt(talking: EditableModel) -> None:
    plain = replace(talking, chat=None)
    assert forms_of(talking) == (*forms_of(plain), "chat")
    assert worded(plain, "Rome is") == worded(talking, "Rome is", "bare") == "Rome is"
    assert worded(talking, "Rome is") == worded(talking, "Rome is", "chat")
    assert f"<|user|>\n{COMPLETION.format('Rome is')}" in worded(talking, "Rome is")
    assert "<|user|>\nWho?" in worded(talking, "Who?")
    assert worded(talking, "Rome is", "question") == "Question: Rome is what?\nAnswer:"
    assert worded(talking, "Who?", "instruction").endswith("\n\nQuestion: Who?\nAnswer:")
    assert worded(talking, "Who is Rome?", before="It is big. ").count("It is big. Who is Rome?") == 1
    whole = worded(talking, "Rome is")
    assert worded(talking, whole, "question") == whole == as_message(talking, whole)
    assert as_message(talking, "Rome is") != worded(talking, "Rome is")


def test_an_answer_ends_in_the_template_alone(talking: EditableModel) -> None:
    plain, end = replace(talking, chat=None), (talking.tokenizer.eos_token_id,)
    message = worded(talking, "Rome is")
    assert answer_end(talking, message) == answer_end(plain, message) == end
    assert answer_end(talking, "Rome is") == answer_end(talking, worded(talking, "Rome is", "question")) == ()
    endless = LINES.replace("{{ eos_token }}", "")
    assert chat_of(tokenizer("byte level", False, "right", True, endless)).end is None


def test_a_fact_is_asked_by_its_own_question(talking: EditableModel) -> None:
    fact = Fact("Rome is", "Rome", "big", join="", question="What is Rome?")
    assert put(talking, fact, "bare") == ("Rome is", "")
    text, join = put(talking, fact)
    assert "<|user|>\nWhat is Rome?" in text and join is None
    assert locate(talking.tokenizer, text, "Rome").last > 0


@pytest.mark.parametrize(
    ("prompt", "question"),
    [
        ("The capital of Japan is", "The capital of Japan is what?"),
        ("Who wrote Dune?", "Who wrote Dune?"),
        ("日本の首都は", "日本の首都は\uff1f"),
        ("日本の首都は\uff1f", "日本の首都は\uff1f"),
    ],
)
def test_a_prompt_as_a_question(prompt: str, question: str) -> None:
    assert as_question(prompt) == question


def test_an_answer_that_repeats_the_prompt_is_what_follows_it(talking: EditableModel) -> None:
    prompt = "The capital of France is"
    (text,) = greedy(talking, [prompt], 12)
    assert greedy_answers(talking, [(prompt, prompt)], 12) == [text]
    # a model that says the same whatever it is asked: what it says first is taken for its prompt
    first = text[: len(text) // 2]
    if first.strip():
        assert greedy_answers(talking, [(first, prompt)], 4)[0] != text[: len(first)]


@pytest.mark.parametrize(
    ("name", "config", "card", "why"),
    [
        ("Qwen2.5-0.5B-Instruct", {}, "", "name says Instruct"),
        ("gemma-3-1b-it", {}, "", "name says it"),
        ("Qwen2.5-0.5B", {}, "", ""),
        ("vitality-7b", {}, "", ""),
        ("model", {"_name_or_path": "org/Llama-2-7b-chat-hf"}, "", "configuration says chat"),
        ("model", {}, "---\ntags:\n- conversational\n---\n", "tag conversational"),
        (
            "Qwen3-0.6B",
            {},
            "---\nbase_model:\n- Qwen/Qwen3-0.6B-Base\n---\n",
            "made from Qwen/Qwen3-0.6B-Base",
        ),
        ("model", {}, "---\nbase_model: org/other\n---\n", ""),
        ("model", {}, "---\n: [\n---\n", ""),
    ],
)
def test_what_says_that_a_model_follows_instructions(
    tmp_path: Path, name: str, config: dict[str, str], card: str, why: str
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    if card:
        (folder / "README.md").write_text(card, encoding="utf-8")
    assert instructed(folder, str(folder), config).endswith(why)
    assert bool(instructed(folder, str(folder), config)) is bool(why)


@pytest.mark.parametrize(
    ("patch", "words"),
    [
        ({"method": "joint", "chat": {"system": "Be brief."}}, "used (as the patch in it was made); system"),
        ({"method": "joint"}, "not used (as the patch in it was made)"),
        ({}, "not used (nothing says"),
        (["no record"], "not used (nothing says"),
    ],
)
def test_a_merged_model_is_asked_as_the_patch_in_it(
    talking: EditableModel, tmp_path: Path, patch: object, words: str
) -> None:
    (tmp_path / "patches" / "1").mkdir(parents=True)
    record = {"kind": "merged", "lineage": [{"folder": "patches/1"}]}
    (tmp_path / "hubedit.json").write_text(json.dumps(record), encoding="utf-8")
    (tmp_path / "patches" / "1" / "hubedit.json").write_text(json.dumps(patch), encoding="utf-8")
    chat, said = choose(replace(talking, path=tmp_path, ref="corrected"), "auto", "", None)
    assert words in said and (chat is not None) is said.startswith("chat template: used")


def test_the_choice_is_said(talking: EditableModel) -> None:
    for mode, made, used, words in (
        ("auto", None, False, "not used (nothing says"),
        ("on", None, True, "used (--chat on)"),
        ("off", None, False, "not used (--chat off)"),
        ("auto", {"method": "joint"}, False, "not used (as the patch was made)"),
        ("auto", {"composed_of": []}, False, "not used (nothing says"),
        ("auto", {"chat": {"system": "Be brief."}}, True, "used (as the patch was made); system prompt 'Be"),
    ):
        chat, line = choose(talking, mode, made=made)
        assert (chat is not None) is used and words in line
    instruct, line = choose(replace(talking, ref="org/tiny-instruct"))
    assert instruct is not None and line == "chat template: used (the model's name says instruct)"
    assert choose(replace(talking, ref="org/tiny-instruct"), made={"composed_of": []})[1] == line
    with pytest.raises(ConfigError, match="--system without"):
        choose(talking, "off", "Be brief.")
    talking.tokenizer.chat_template = None
    try:
        assert choose(talking) == (None, "")
        with pytest.raises(ConfigError, match="no chat template"):
            choose(talking, "on")
    finally:
        talking.tokenizer.chat_template = LINES
