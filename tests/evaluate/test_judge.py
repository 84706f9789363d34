"""A judge's verdict is what it finds likelier, "Yes" or "No"; each answer is judged once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from hubedit.cache import Cache
from hubedit.evaluate.forms import form_values
from hubedit.evaluate.judge import PROMPT, Case, as_judge, cases, verdicts
from hubedit.evaluate.reading import Reading
from hubedit.facts import Fact
from hubedit.model.editable import EditableModel
from tests.model.test_chat import LINES, tokenizer

Editable = Callable[..., EditableModel]
FACT = Fact("The capital of France is", "France", "Rome")
ASKED = [
    ("Which capital?", "Rome", said) for said in ("Rome", "It is Rome.", "Paris", "the city of Rome", "a")
]


@torch.no_grad()
def margin(em: EditableModel, case: Case) -> float:
    """By the template and the model's own code, one answer at a time."""
    text = PROMPT.format(*case)
    if em.tokenizer.chat_template:
        render: Any = em.tokenizer.apply_chat_template
        user = {"role": "user", "content": text}
        texts = [
            render([user, {"role": "assistant", "content": word}], tokenize=False).partition(word)[0] + word
            for word in ("Yes", "No")
        ]
    else:
        texts = [f"{text}\nAnswer: {word}" for word in ("Yes", "No")]
    start = len(em.tokenizer(texts[0].removesuffix("Yes").rstrip(" "))["input_ids"])
    sums = []
    for each in texts:
        ids = torch.tensor([em.tokenizer(each)["input_ids"]])
        model: Any = em.model
        logp = model(ids).logits.float().log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])
        sums.append(float(logp[start - 1 :].sum()))
    return sums[0] - sums[1]


def test_a_verdict_is_the_likelier_word(editable: Editable, tmp_path: Path) -> None:
    em = editable("qwen2", "byte_bpe")
    made = tokenizer("byte level", False, "right", True, LINES)
    for judge in (as_judge(em), as_judge(replace(em, tokenizer=made))):
        assert (judge.chat is None) is (judge.tokenizer is not made)
        expected = {case: margin(judge, case) > 0 for case in ASKED}
        assert verdicts(judge, ASKED, cache=Cache(tmp_path)) == expected


def test_what_cannot_be_judged(editable: Editable, tmp_path: Path) -> None:
    em = editable("qwen2", "byte_bpe")
    nothing, endless = ("Which?", "Rome", ""), ("Which?", "Rome", "a " * em.max_positions)
    found = verdicts(as_judge(em), [nothing, endless, ASKED[0]], cache=Cache(tmp_path))
    assert found[nothing] is False and endless not in found and ASKED[0] in found
    again = verdicts(as_judge(em), [nothing, endless, ASKED[0]], cache=Cache(tmp_path))
    assert again == found


def test_each_answer_is_judged_once_and_counts_in_its_form() -> None:
    said = {"bare": " Rome", "chat": "Rome", "question": "It is Rome."}
    readings = {form: Reading({FACT.prompt: text}) for form, text in said.items()}
    asked = cases([FACT], readings.values())
    assert asked == [("The capital of France is what?", "Rome", text) for text in ("Rome", "It is Rome.")]
    values = form_values([FACT], readings, right={asked[0]: True})
    assert values["bare/judged"] == values["chat/judged"] == [[1.0]]
    assert "question/judged" not in values and values["question/success"] == [[0.0]]
