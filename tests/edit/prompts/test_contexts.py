"""Forms of a fact's prompt: each joined to its target, and none around a whole input."""

from __future__ import annotations

from collections.abc import Callable

from hubedit.config import PromptConfig
from hubedit.edit.prompts.contexts import key_rows, target_rows
from hubedit.facts import Fact
from hubedit.model.editable import EditableModel
from hubedit.model.tokens import decode, encode

Editable = Callable[..., EditableModel]


def test_forms_join_prompt_and_target_as_the_fact_says(editable: Editable) -> None:
    em = editable("qwen2", "byte_bpe")
    rows = target_rows(em, [Fact("Rome is", "Rome", "ly", join="")], PromptConfig(), 2)
    texts = [decode(em.tokenizer, [*r.ids, r.labels[-1]]) for r in rows]
    assert texts == ["Rome isly", "As for Rome isly", "Question: Rome is what?\nAnswer: ly"]


def test_a_prompt_in_a_chat_templates_text_has_no_other_form(editable: Editable) -> None:
    em = editable("llama", "metaspace_bos")
    prompt = "<s>Rome is"
    fact, prompts = Fact(prompt, "Rome", "big"), PromptConfig()
    (target,), (key,) = target_rows(em, [fact], prompts, 3), key_rows(em, [fact], prompts)
    assert target.ids[: target.first_scored + 1] == encode(em.tokenizer, prompt).ids
    assert key.ids == target.ids[: target.last + 1]
