"""Composing: the sum of the changes, exactly; conflicts found, and settled only where they can be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hubedit.errors import ConfigError, PatchError
from hubedit.facts import Fact
from hubedit.linalg import LowRank
from hubedit.patch import Patch
from hubedit.patch.compose import ConflictError, compose, composed
from hubedit.patch.conflicts import chance_cosine, conflicts
from hubedit.patch.identity import patch_id
from hubedit.patch.owners import owners, torn

DOWN, OUT = "model.layers.1.mlp.down_proj", "model.layers.0.self_attn.o_proj"
HASHES = {DOWN: "d" * 64, OUT: "e" * 64}
WIDTH = 24


def fact(name: str, target: str = "x", **more: Any) -> Fact:
    return Fact(f"The capital of {name} is", name, target, **more)


def made(
    ranks: tuple[int, int] = (2, 2),
    seed: int = 0,
    facts: Sequence[Fact] = (),
    base: dict[str, Any] | None = None,
    commit: str = "",
    **record: Any,
) -> Patch:
    """A patch of two modules (rank 0: without one); `facts` and `method` make it what `apply` writes."""
    g = torch.Generator().manual_seed(seed)
    factors = {
        name: LowRank(torch.randn(6, rank, generator=g), torch.randn(rank, WIDTH, generator=g))
        for name, rank in zip((DOWN, OUT), ranks, strict=True)
        if rank
    }
    kept = {"tensors": {m: HASHES[m] for m in factors}, "identity": "i" * 64, "family": "llama"}
    return Patch(
        factors, {"base": kept if base is None else base, **record}, "owner/base", commit, tuple(facts)
    )


def dense(patches: Sequence[Patch]) -> dict[str, torch.Tensor]:
    total: dict[str, torch.Tensor] = {}
    for patch in patches:
        for module, factor in patch.factors.items():
            total[module] = total.get(module, torch.zeros(factor.shape)) + factor.dense()
    return total


PARTS = st.lists(
    st.tuples(st.integers(0, 4), st.integers(1, 4), st.integers(0, 99)), min_size=1, max_size=4, unique=True
)


@given(PARTS)
def test_the_sum_is_exact_and_in_order(parts: list[tuple[int, int, int]]) -> None:
    patches = [made((a, b), seed) for a, b, seed in parts]
    whole = compose(patches)
    for module, wanted in dense(patches).items():
        factor = whole.factors[module]
        torch.testing.assert_close(factor.dense(), wanted, rtol=1e-5, atol=1e-5)
        held = [patch.factors[module] for patch in patches if module in patch.factors]
        assert torch.equal(factor.A, torch.cat([f.A for f in held]))
        assert torch.equal(factor.B, torch.cat([f.B for f in held], 1))
    assert [part["id"] for part in whole.record["composed_of"]] == [patch_id(p) for p in patches]
    assert set(whole.record["base"]["tensors"]) == set(whole.factors)


@given(PARTS, st.integers(1, 6))
def test_truncation_is_optimal_and_says_what_it_keeps(parts: list[tuple[int, int, int]], rank: int) -> None:
    patches = [made((a, b), seed) for a, b, seed in parts]
    exact, cut = compose(patches), composed(patches, rank=rank)
    for module, factor in cut.patch.factors.items():
        values = torch.linalg.svdvals(exact.factors[module].dense().double())
        lost = (exact.factors[module].dense().double() - factor.dense().double()).norm()
        assert float(lost) == pytest.approx(float(values[rank:].norm()), abs=1e-4)
        if cut.energy:
            kept = float((values[:rank] ** 2).sum() / (values**2).sum())
            assert cut.energy[module] == pytest.approx(kept, abs=1e-5)


def test_composing_is_associative_and_survives_the_disk(tmp_path: Path) -> None:
    one, two, three = (
        made((1, 1), n, [fact(name)], method="intattn") for n, name in enumerate(("France", "Italy", "Japan"))
    )
    nested = compose([compose([one, two]), three])
    flat = Patch.load(compose([one, two, three]).save(tmp_path / "p"))
    assert nested.facts == flat.facts and owners(nested) == owners(flat)
    assert {m: [0, 1, 2] for m in flat.factors} == {m: list(rows) for m, rows in (owners(flat) or {}).items()}
    for module in (DOWN, OUT):
        assert torch.equal(nested.factors[module].A, flat.factors[module].A)


def test_equal_ids_become_different() -> None:
    patches = [made((1, 1), n, [fact(name, id="1")]) for n, name in enumerate(("France", "Italy", "Japan"))]
    assert [f.id for f in compose(patches).facts] == ["1", "1-2", "1-3"]


# --- different bases -------------------------------------------------------------------------------------


def test_patches_of_different_bases_are_refused() -> None:
    def refused(one: Patch, two: Patch, match: str) -> None:
        with pytest.raises(PatchError, match=match):
            compose([one, two])

    plain = made()
    other = {"tensors": {**HASHES, DOWN: "0" * 64}}
    refused(plain, made(base=other), "other weights")
    refused(plain, made(base={**plain.record["base"], "family": "gpt2"}), "llama and gpt2")
    refused(made(commit="a" * 40), made(commit="b" * 40), "commits aaaaaaaaaaaa and bbbbbbbbbbbb")
    wide = {DOWN: LowRank(torch.ones(6, 1), torch.ones(1, WIDTH + 1))}
    refused(plain, replace(plain, factors=wide), "is 6 x 24 and 6 x 25")
    unrelated = made((0, 1), base={"tensors": {OUT: "e" * 64}, "identity": "j" * 64})
    refused(made((1, 0)), unrelated, "nothing shows")
    compose([plain, made(seed=1, base={"tensors": HASHES, "identity": "j" * 64})])
    compose([made((1, 0)), made((0, 1))])  # no weight in common, but one identity


def test_one_commit_loaded_in_two_dtypes() -> None:
    def loaded(dtype: str, ranks: tuple[int, int], letter: str) -> Patch:
        tensors = {name: letter * 64 for name, rank in zip((DOWN, OUT), ranks, strict=True) if rank}
        return made(ranks, base={"tensors": tensors, "dtype": dtype}, commit="c" * 40)

    with pytest.raises(PatchError, match="loaded as float32 and as bfloat16") as raised:
        compose([loaded("float32", (1, 1), "a"), loaded("bfloat16", (1, 0), "b")])
    assert "--dtype" in raised.value.hint
    compose([loaded("float32", (1, 1), "a"), loaded("bfloat16", (1, 0), "a")])
    # the record's dtype is the one that explains the rounded hashes
    mixed = compose([loaded("float32", (1, 0), "a"), loaded("bfloat16", (0, 1), "b")])
    assert mixed.record["base"]["dtype"] == "bfloat16"
    with pytest.raises(PatchError, match="float16"):
        compose([loaded("float16", (1, 0), "a"), loaded("bfloat16", (0, 1), "b")])


def test_a_foreign_adapter_is_known_by_its_base_name() -> None:
    foreign = made((1, 1), base={}, foreign={})
    whole = compose([foreign, made()])
    assert whole.record["base"]["tensors"] == HASHES
    assert whole.record["composed_of"][0]["base_verified"] is False
    assert "unverified" not in whole.record["base"]
    assert compose([foreign, made((1, 0))]).record["base"]["unverified"] == [OUT]
    with pytest.raises(PatchError, match="owner/base and elsewhere"):
        compose([made(), replace(foreign, base="elsewhere")])
    with pytest.raises(ConfigError):
        compose([])
    with pytest.raises(ConfigError):
        compose([made()], rank=-1)


# --- conflicts -------------------------------------------------------------------------------------------


def edited(names: Sequence[tuple[str, str]], seed: int, **record: Any) -> Patch:
    facts = [fact(name, target) for name, target in names]
    return made((len(facts), len(facts)), seed, facts, **{"method": "intattn", **record})


def test_contradictions_stop_and_name_both_facts() -> None:
    one, two = edited([("France", "Lyon"), ("Italy", "Turin")], 0), edited([("FRANCE", "Nice")], 1)
    with pytest.raises(ConflictError, match=r"Lyon.*Nice") as raised:
        compose([one, two])
    assert raised.value.hint and len(raised.value.problems) == 1
    assert [c.kind for c in conflicts([one, two])] == ["contradiction"]


def test_a_listed_paraphrase_contradicts_too() -> None:
    ask = "France has the capital"
    one = made((1, 1), 0, [fact("France", "Lyon", rephrase=(ask,))])
    two = made((1, 1), 1, [Fact(ask, "France", "Nice")])
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
    two = made((1, 1), 1, [fact("France", "Nice", rephrase=(ask,))], method="intattn")
    three = made((1, 1), 2, [Fact(ask, "France", "Metz")], method="intattn")
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


@pytest.mark.parametrize("rule", ["stop", "first", "last"])
def test_the_same_patch_twice_is_refused(rule: Literal["stop", "first", "last"]) -> None:
    one, again = made(seed=1), replace(made(seed=1), record={**made().record, "created": "later"})
    with pytest.raises(ConfigError, match=r"a and c are the same patch \([0-9a-f]{12}\)"):
        composed([one, made(seed=2), again], on_conflict=rule, names=("a", "b", "c"))


def test_the_sum_knows_how_large_the_weights_are() -> None:
    one = made((1, 1), 1, sites={DOWN: {"weight_norm": 3.5, "budget": 1}})
    two = made(
        (1, 1), 2, sites={DOWN: {"weight_norm": 3.5}, OUT: {"weight_norm": 2.0}, "x": {"weight_norm": 1}}
    )
    whole = compose([one, two])
    assert whole.record["sites"] == {DOWN: {"weight_norm": 3.5}, OUT: {"weight_norm": 2.0}}
    assert "sites" not in compose([made(seed=1), made(seed=2)]).record


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
    assert not torn(summed, {0})
    assert torn(replace(one, record={**one.record, "composed_of": [*parts, {"method": "intattn"}]}), {0}) == {
        0
    }


def test_a_name_that_ends_alike_is_the_same_subject() -> None:
    one = edited([("France", "Lyon"), ("Spain", "Turin")], 0)
    long = Fact("Marie Curie works for", "Marie Curie", "Google", "a")
    short = Fact("Marie Curie was born in", "Curie", "Rome", "b")
    assert torn(replace(one, facts=(long, short)), {0}) == {0}
    assert not torn(replace(one, facts=(long, short)), {0, 1})
