"""Forms of a fact's prompt: each joined to its target, and none around a whole input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from hubedit.config import PromptConfig
from hubedit.edit.prompts.contexts import key_rows, preserved_rows, target_rows
from hubedit.edit.rows import edit_rows
from hubedit.evaluate.coincident import edited_texts
from hubedit.facts import Fact
from hubedit.model.chat import chat_of
from hubedit.model.editable import EditableModel
from hubedit.model.forms import COMPLETION
from hubedit.model.tokens import decode, encode
from tests.model.test_chat import LINES, tokenizer

Editable = Callable[..., EditableModel]


def test_forms_join_prompt_and_target_as_the_fact_says(editable: Editable) -> None:
    em = editable("qwen2", "byte_bpe")
    rows = target_rows(em, [Fact("Rome is", "Rome", "ly", join="")], PromptConfig(), 2)
    texts = [decode(em.tokenizer, [*r.ids, r.labels[-1]]) for r in rows]
    assert texts == ["Rome isly", "As for Rome isly", "Question: Rome is what?\nAnswer: ly"]


def test_a_chat_models_facts_are_edited_in_the_template_and_outside(editable: Editable) -> None:
    em = editable("qwen2", "byte_bpe")
    made = tokenizer("byte level", False, "right", True, LINES)
    em = replace(em, tokenizer=made, chat=chat_of(made))
    fact = Fact("Rome is", "Rome", "big", question="What is Rome?")

    def texts(fact: Fact) -> list[str]:
        rows = target_rows(em, [fact], PromptConfig(), 2)
        return [str(em.tokenizer.decode([*r.ids, r.labels[-1]])) for r in rows]

    def turn(text: str, last: str = "") -> str:
        return f"<|user|>\n{text}{end}\n<|assistant|>\nbig{last}"

    end = em.tokenizer.eos_token

    outside = ["Rome is big", "Question: What is Rome?\nAnswer: big"]
    # the first of them alone ends its turn
    said = [turn("What is Rome?", end), turn(COMPLETION.format("Rome is")), turn("Rome is what?")]
    assert texts(fact) == [*said, *outside]
    question = replace(fact, prompt="Is Rome it?", question="")
    assert texts(question) == [
        turn("Is Rome it?", end),
        "Is Rome it? big",
        "Question: Is Rome it?\nAnswer: big",
    ]
    # the usual form stands first: by it a target's length is measured, and published methods edit it
    for each in (fact, question):
        (own,) = edit_rows(em, [each], ())
        first = target_rows(em, [each], PromptConfig(), 2)[0]
        # there alone the answer ends: published methods have the targets that are published
        assert (own.ids, own.labels) == (first.ids[:-1], first.labels[:-1])
    keys = [decode(em.tokenizer, row.ids) for row in key_rows(em, [fact], PromptConfig())]
    assert len(keys) == len(set(keys)) == 4 + len(PromptConfig().openings) + 1
    assert all(key.endswith("Rome") for key in keys)


def test_a_prompt_in_a_chat_templates_text_has_no_other_form(editable: Editable) -> None:
    em = editable("llama", "metaspace_bos")
    prompt = "<s>Rome is"
    fact, prompts = Fact(prompt, "Rome", "big"), PromptConfig()
    (target,), (key,) = target_rows(em, [fact], prompts, 3), key_rows(em, [fact], prompts)
    assert target.ids[: target.first_scored + 1] == encode(em.tokenizer, prompt).ids
    assert key.ids == target.ids[: target.last + 1]


def test_every_form_that_is_edited_is_known_to_the_evaluation(editable: Editable) -> None:
    em, fact = editable("qwen2", "byte_bpe"), Fact("Rome is", "Rome", "big")
    forms = [*target_rows(em, [fact], PromptConfig(), len(PromptConfig().openings))]
    forms += preserved_rows(em, [fact])
    texts = {decode(em.tokenizer, r.ids[: r.first_scored + 1]) for r in forms}
    assert len(texts) == len(PromptConfig().openings) + 2
    assert texts <= edited_texts([fact])
