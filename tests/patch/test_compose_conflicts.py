"""Composing: conflicts are found, and settled only where they can be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hubedit.facts import Fact
from hubedit.linalg import LowRank
from hubedit.patch import Patch
from hubedit.patch.compose import ConflictError, compose, composed
from hubedit.patch.conflicts import chance_cosine, conflicts
from hubedit.patch.owners import inseparable
from tests.patch.parts import DOWN
from tests.patch.recorded import edited, fact, recorded


def test_contradictions_stop_and_name_both_facts() -> None:
    one, two = edited([("France", "Lyon"), ("Italy", "Turin")], 0), edited([("FRANCE", "Nice")], 1)
    with pytest.raises(ConflictError, match=r"Lyon.*Nice") as raised:
        compose([one, two])
    assert raised.value.hint and len(raised.value.problems) == 1
    assert [c.kind for c in conflicts([one, two])] == ["contradiction"]


def test_a_listed_paraphrase_contradicts_too() -> None:
    ask = "France has the capital"
    one = recorded((1, 1), 0, [fact("France", "Lyon", rephrase=(ask,))])
    two = recorded((1, 1), 1, [Fact(ask, "France", "Nice")])
    assert [c.kind for c in conflicts([one, two])] == ["contradiction"]


@pytest.mark.parametrize("keep", ["first", "last"])
def test_the_loser_is_taken_out_and_nothing_else(keep: Literal["first", "last"], tmp_path: Path) -> None:
    one = edited([("France", "Lyon"), ("Italy", "Turin")], 0)
    two = edited([("Japan", "Kyoto"), ("France", "Nice")], 1)
    found = composed([one, two], on_conflict=keep)
    assert [f.target for f in found.dropped] == ["Nice" if keep == "first" else "Lyon"]
    survivors = [(one, 0), (one, 1), (two, 0)] if keep == "first" else [(one, 1), (two, 0), (two, 1)]
    assert list(found.patch.facts) == [patch.facts[n] for patch, n in survivors]
    for module, factor in found.patch.factors.items():
        rows = torch.stack([patch.factors[module].A[n] for patch, n in survivors])
        columns = torch.stack([patch.factors[module].B[:, n] for patch, n in survivors], 1)
        assert torch.equal(factor.A, rows) and torch.equal(factor.B, columns)
    # what was composed can be settled again, also from disk
    loaded = Patch.load(found.patch.save(tmp_path / "p"))
    third = edited([("Italy", "Milan")], 2)
    again = composed([loaded, third], on_conflict="last")
    assert [f.target for f in again.dropped] == ["Turin"] and len(again.patch.facts) == 3


@pytest.mark.parametrize("change", [{"truncation": {}}, {"foreign": {}}, {"rows": {DOWN: [[0, 9]]}}])
def test_what_cannot_be_taken_out_is_refused(change: dict[str, Any]) -> None:
    one, two = edited([("France", "Lyon")], 0, **change), edited([("France", "Nice")], 1)
    if "foreign" in change:
        one = replace(one, record={k: v for k, v in one.record.items() if k != "method"})
    with pytest.raises(ConflictError, match=r"cannot: its patch is truncated.*Lyon.*Nice") as raised:
        composed([one, two], on_conflict="last")
    assert "--on" in raised.value.hint
    # the other way round the loser can be taken out
    assert [f.target for f in composed([one, two], on_conflict="first").patch.facts] == ["Lyon"]


def test_a_fact_edited_twice_is_said_and_settled() -> None:
    one, two = edited([("France", "Lyon")], 0), edited([("France", "lyon")], 1)
    with pytest.raises(ConflictError, match="edit the same facts: patch 1 and patch 2 both make"):
        composed([one, two])
    found = composed([one, two], on_conflict="last")
    assert [c.kind for c in found.conflicts] == ["repetition"] and len(found.patch.facts) == 1
    assert torch.equal(found.patch.factors[DOWN].A, two.factors[DOWN].A)


def test_a_full_stop_is_no_contradiction() -> None:
    one, two = edited([("France", "Paris")], 0), edited([("France", "Paris.")], 1)
    assert [c.kind for c in conflicts([one, two])] == ["repetition"]


@pytest.mark.parametrize("keep", ["first", "last"])
def test_a_fact_gives_way_only_to_one_that_stays(keep: Literal["first", "last"]) -> None:
    ask = "France has the capital"
    one = edited([("France", "Lyon")], 0)
    two = recorded((1, 1), 1, [fact("France", "Nice", rephrase=(ask,))], method="joint")
    three = recorded((1, 1), 2, [Fact(ask, "France", "Metz")], method="joint")
    found = composed([one, two, three], on_conflict=keep)
    assert [f.target for f in found.patch.facts] == ["Lyon", "Metz"]
    # it has to give way to one of them, and cannot
    stuck = replace(two, record={**two.record, "truncation": {}})
    with pytest.raises(ConflictError) as raised:
        composed([one, stuck, three], on_conflict=keep)
    winner = "Lyon" if keep == "first" else "Metz"
    (line,) = raised.value.problems
    assert winner in line and "Nice" in line


def test_parallel_detectors_are_found_and_chance_is_not() -> None:
    one, two = edited([("France", "Lyon"), ("Italy", "Turin")], 0), edited([("Japan", "Kyoto")], 1)
    assert conflicts([one, two]) == []
    a = two.factors[DOWN].A.clone()
    a[0] = -3 * one.factors[DOWN].A[1] + 0.1 * a[0]
    near = replace(two, factors={**two.factors, DOWN: LowRank(two.factors[DOWN].B, a)})
    (found,) = conflicts([one, near])
    assert (found.kind, found.first_fact, found.second_fact, found.module) == ("overlap", 1, 0, DOWN)
    assert found.similarity > 0.95 and "cosine" in found.describe(["a", "b"])
    sizes = [
        float(patch.factors[DOWN].B[:, row].norm() * patch.factors[DOWN].A[row].norm())
        for patch, row in ((one, 1), (near, 0))
    ]
    assert found.sizes == pytest.approx(sizes) and "that of b is" in found.stronger(["a", "b"])
    assert "neither" in replace(found, sizes=(1.0, 1.2)).stronger(["a", "b"])
    # without rows by fact, the subspaces are compared
    blind = [replace(patch, record={"base": patch.record["base"]}, facts=()) for patch in (one, two, near)]
    assert conflicts(blind[:2]) == []
    assert [(c.first, c.second, c.facts) for c in conflicts(blind) if c.first == 0] == [(0, 2, ())]


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 99))
def test_random_subspaces_are_no_overlap(first: int, second: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    record = {"base": {"identity": "i"}}

    def random(rank: int) -> Patch:
        return Patch(
            {DOWN: LowRank(torch.randn(64, rank, generator=g), torch.randn(rank, 64, generator=g))},
            record,
            "b",
        )

    assert conflicts([random(first), random(second)]) == []


def test_the_chance_level_is_the_one_seen() -> None:
    g = torch.Generator().manual_seed(0)
    a, b = (torch.linalg.qr(torch.randn(400, n, generator=g))[0] for n in (40, 80))
    assert float(torch.linalg.svdvals(a.T @ b)[0]) == pytest.approx(chance_cosine(40, 80, 400), abs=0.04)
    assert chance_cosine(300, 100, 400) == 1


def test_facts_about_one_subject_give_way_together_or_not_at_all() -> None:
    """They share what they ask the site to write, so that the others would be left with a part of it."""
    one = edited([("France", "Lyon"), ("Spain", "Turin")], 0)
    twin = replace(one.facts[1], prompt="France uses the", subject="France", target="franc", id="twin")
    one = replace(one, facts=(one.facts[0], twin))
    two = edited([("France", "Nice")], 1)
    with pytest.raises(ConflictError, match="changed another fact about the same subject"):
        composed([one, two], on_conflict="last")
    assert [f.target for f in composed([one, two], on_conflict="first").patch.facts] == ["Lyon", "franc"]
    both = replace(two, facts=(two.facts[0], replace(twin, target="euro")))
    both = replace(
        both, factors={m: LowRank(f.B.repeat(1, 2), f.A.repeat(2, 1)) for m, f in two.factors.items()}
    )
    assert [f.target for f in composed([one, both], on_conflict="last").patch.facts] == ["Nice", "euro"]
    # the published methods give every fact a value of its own
    apart = replace(one, record={**one.record, "method": "memit"})
    assert [f.target for f in composed([apart, two], on_conflict="last").patch.facts] == ["franc", "Nice"]
    # what a patch stands on may have shared all the same
    below = replace(apart, record={**apart.record, "on": {"id": "x", "facts": 1}})
    with pytest.raises(ConflictError, match="changed another fact"):
        composed([below, two], on_conflict="last")
    parts = [{"method": "memit"}, {"method": "rome"}]
    summed = replace(one, record={**one.record, "composed_of": parts})
    assert not inseparable(summed, {0})
    assert inseparable(
        replace(one, record={**one.record, "composed_of": [*parts, {"method": "joint"}]}), {0}
    ) == {0}


def test_a_name_that_ends_alike_is_the_same_subject() -> None:
    one = edited([("France", "Lyon"), ("Spain", "Turin")], 0)
    long = Fact("Marie Curie works for", "Marie Curie", "Google", "a")
    short = Fact("Marie Curie was born in", "Curie", "Rome", "b")
    assert inseparable(replace(one, facts=(long, short)), {0}) == {0}
    assert not inseparable(replace(one, facts=(long, short)), {0, 1})
