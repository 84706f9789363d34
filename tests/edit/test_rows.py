"""Token rows: what is scored stands where the answer stands, and no fact is split over batches."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubedit.edit.rows import Row, Rows, bare_rows, by_length, chunks, edit_rows, row
from hubedit.facts import Fact
from hubedit.model.editable import EditableModel
from hubedit.model.tokens import decode, encode
from tests.edit.editing import FACTS

Editable = Callable[..., EditableModel]
CONTEXTS = ["It was a day. ", "She plays. "]


@pytest.mark.parametrize(("family", "tokenizer"), [("llama", "metaspace_bos"), ("qwen2", "byte_bpe")])
def test_edit_rows_hold_prompt_subject_and_target(family: str, tokenizer: str, editable: Editable) -> None:
    em = editable(family, tokenizer)
    rows = edit_rows(em, FACTS, CONTEXTS)
    assert [r.fact for r in rows] == [n for n in range(len(FACTS)) for _ in range(3)]
    for r, context in zip(rows, ["", *CONTEXTS] * len(FACTS), strict=True):
        fact = FACTS[r.fact]
        prompt = decode(em.tokenizer, r.ids[: r.first_scored + 1])
        assert prompt.strip() == context + fact.prompt
        assert decode(em.tokenizer, [*r.ids, r.labels[-1]]).strip() == f"{context}{fact.prompt} {fact.target}"
        assert decode(em.tokenizer, r.ids[: r.last + 1]).strip().endswith(fact.subject)
        assert r.last <= r.first_scored == len(r.ids) - len(r.labels)
        assert not r.preserve


@pytest.mark.parametrize(("join", "between"), [(None, " "), ("", ""), ("\n", "\n")])
def test_edit_rows_join_prompt_and_target_as_the_fact_says(
    join: str | None, between: str, editable: Editable
) -> None:
    em = editable("qwen2", "byte_bpe")
    (made,) = edit_rows(em, [Fact("Rome is", "Rome", "ly", join=join)], ())
    assert decode(em.tokenizer, [*made.ids, made.labels[-1]]) == f"Rome is{between}ly"


def test_a_context_stands_behind_the_prompts_own_bos(editable: Editable) -> None:
    em = editable("llama", "metaspace_bos")
    for r in edit_rows(em, [Fact("<s>Rome is", "Rome", "here")], CONTEXTS):
        assert r.ids.count(em.tokenizer.bos_token_id) == 1
        assert r.ids[0] == em.tokenizer.bos_token_id


def test_labels_may_be_given_in_tokens(editable: Editable) -> None:
    em = editable()
    made = row(em, 3, "Rome is", "Rome", labels=(7, 8, 9), preserve=True)
    assert made.ids == (*encode(em.tokenizer, "Rome is").ids, 7, 8)
    assert (made.fact, made.labels, made.preserve) == (3, (7, 8, 9), True)


def test_tensors_point_at_every_label(editable: Editable) -> None:
    em = editable()
    rows = edit_rows(em, FACTS[:2], CONTEXTS)
    tensors = Rows.of(em, rows)
    assert tensors.fact.tolist() == [r.fact for r in rows]
    assert tensors.last.tolist() == [r.last for r in rows]
    assert tensors.label.tolist() == [token for r in rows for token in r.labels]
    for i, at, label in zip(
        tensors.scored_row.tolist(), tensors.scored_at.tolist(), tensors.label.tolist(), strict=True
    ):
        assert (*rows[i].ids, rows[i].labels[-1])[at + 1] == label


@st.composite
def many_rows(draw: st.DrawFn) -> list[Row]:
    shapes = draw(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 30)), max_size=20))
    return [Row(fact, tuple(range(length)), 0, (7,) * (1 + length % 3)) for fact, length in shapes]


@given(many_rows(), st.integers(1, 200))
def test_chunks_hold_every_row_once_within_the_budget_and_split_no_fact(rows: list[Row], tokens: int) -> None:
    parts = chunks(rows, tokens)
    assert sorted(id(r) for part in parts for r in part) == sorted(map(id, rows))
    homes = [{r.fact for r in part} for part in parts]
    assert sum(map(len, homes)) == len(set().union(*homes))
    for part, facts in zip(parts, homes, strict=True):
        assert max(len(r.ids) for r in part) * len(part) <= tokens or len(facts) == 1
        for fact in facts:
            own = [id(r) for r in rows if r.fact == fact]
            assert [id(r) for r in part if r.fact == fact] == own, "the bare prompt stays first"


@given(many_rows(), st.integers(1, 200), st.integers(0, 6))
def test_rows_alike_stand_together_within_both_budgets(rows: list[Row], tokens: int, positions: int) -> None:
    parts = by_length(rows, tokens, positions)
    assert sorted(id(r) for part in parts for r in part) == sorted(map(id, rows))
    place = {id(r): n for n, r in enumerate(rows)}
    order = [(len(r.ids), place[id(r)]) for part in parts for r in part]
    assert order == sorted(order), "the order must not depend on the budget"
    for part in parts:
        assert len(part[-1].ids) * len(part) <= tokens or len(part) == 1
        assert not positions or sum(len(r.labels) for r in part) <= positions or len(part) == 1
    for part, following in pairwise(parts):
        wide = (len(part) + 1) * len(following[0].ids) > tokens
        assert wide or (positions and sum(len(r.labels) for r in (*part, following[0])) > positions)


def test_the_bare_prompt_is_the_first_that_must_give_the_target() -> None:
    rows = [
        Row(1, (4, 5), 1, (6,), True),
        Row(1, (4,), 0, (6,)),
        Row(0, (3, 4), 0, (6,)),
        Row(1, (9, 4), 1, (6,)),
    ]
    found = bare_rows(rows)
    assert set(found) == {0, 1} and found[1] is rows[1] and found[0] is rows[2]
