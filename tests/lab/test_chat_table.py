"""The lab's tables of chat forms and long targets, on a tiny model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from hubedit.facts import Fact, Probe
from hubedit.linalg import LowRank
from hubedit.model.chat import chat_of
from hubedit.model.editable import EditableModel
from hubedit.model.forms import put
from hubedit.model.sites import Site
from hubedit.model.tokens import continuation
from tests.lab.chat import COLUMNS, known_in_chat, readings, row
from tests.lab.long import cut, right_share
from tests.model.test_chat import LINES, tokenizer

FACTS = [
    Fact(
        "The capital of France is",
        "France",
        "Rome",
        ground_truth=("Paris",),
        locality=(Probe("The capital of Japan is", ("Tokyo",)),),
    )
]


@pytest.fixture
def talking(editable: Callable[..., EditableModel]) -> EditableModel:
    em = editable("llama", "metaspace_bos")
    made = tokenizer("metaspace first", True, "right", True, LINES)
    return replace(em, tokenizer=made, chat=chat_of(made))


def test_a_row_has_every_column_and_sees_the_edit(talking: EditableModel) -> None:
    before = readings(talking, FACTS)
    plain = row(talking, FACTS, FACTS, before)
    assert set(plain) == {*COLUMNS, "chat/neighbourhood", "bystanders"}
    # nothing is edited, so nothing changes; the random model knows no fact
    assert plain["chat/neighbourhood"] == 100 and plain["bystanders"] == 0
    site = Site(2, "mlp")
    out, width = talking.weight(site).shape
    torch.manual_seed(1)
    noise = LowRank(50 * torch.randn(out, 8), torch.randn(8, width))
    edited = row(talking, FACTS, FACTS, before, factors={site: noise})
    assert edited["chat/neighbourhood"] == 0
    assert known_in_chat(talking, FACTS, 3) == []


def test_a_target_is_cut_to_its_tokens(talking: EditableModel) -> None:
    text = "The river Nile flows through Egypt and Sudan, and many people visit it."
    for length in (3, 8, 200):
        fact = cut(talking, FACTS[0], text, length)
        prompt, join = put(talking, fact)
        size = len(continuation(talking.tokenizer, prompt, fact.target, join))
        assert text.startswith(fact.target)
        assert size <= length or " " not in fact.target
    assert fact.target == text
    assert 0 <= right_share(talking, [fact]) < 1
