"""Composing: the sum of the changes, exactly; other bases refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hubedit.errors import ConfigError, PatchError
from hubedit.linalg import LowRank
from hubedit.patch import Patch
from hubedit.patch.compose import compose, composed
from hubedit.patch.identity import patch_id
from hubedit.patch.owners import owners
from tests.patch.parts import DOWN, OUT
from tests.patch.recorded import HASHES, WIDTH, fact, recorded


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
    patches = [recorded((a, b), seed) for a, b, seed in parts]
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
    patches = [recorded((a, b), seed) for a, b, seed in parts]
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
        recorded((1, 1), n, [fact(name)], method="joint")
        for n, name in enumerate(("France", "Italy", "Japan"))
    )
    nested = compose([compose([one, two]), three])
    flat = Patch.load(compose([one, two, three]).save(tmp_path / "p"))
    assert nested.facts == flat.facts and owners(nested) == owners(flat)
    assert {m: [0, 1, 2] for m in flat.factors} == {m: list(rows) for m, rows in (owners(flat) or {}).items()}
    for module in (DOWN, OUT):
        assert torch.equal(nested.factors[module].A, flat.factors[module].A)


def test_equal_ids_become_different() -> None:
    patches = [
        recorded((1, 1), n, [fact(name, id="1")]) for n, name in enumerate(("France", "Italy", "Japan"))
    ]
    assert [f.id for f in compose(patches).facts] == ["1", "1-2", "1-3"]


# --- different bases -------------------------------------------------------------------------------------


def test_patches_of_different_bases_are_refused() -> None:
    def refused(one: Patch, two: Patch, match: str) -> None:
        with pytest.raises(PatchError, match=match):
            compose([one, two])

    plain = recorded()
    other = {"tensors": {**HASHES, DOWN: "0" * 64}}
    refused(plain, recorded(base=other), "other weights")
    refused(plain, recorded(base={**plain.record["base"], "family": "gpt2"}), "llama and gpt2")
    refused(recorded(commit="a" * 40), recorded(commit="b" * 40), "commits aaaaaaaaaaaa and bbbbbbbbbbbb")
    wide = {DOWN: LowRank(torch.ones(6, 1), torch.ones(1, WIDTH + 1))}
    refused(plain, replace(plain, factors=wide), "is 6 x 24 and 6 x 25")
    unrelated = recorded((0, 1), base={"tensors": {OUT: "e" * 64}, "identity": "j" * 64})
    refused(recorded((1, 0)), unrelated, "nothing shows")
    compose([plain, recorded(seed=1, base={"tensors": HASHES, "identity": "j" * 64})])
    compose([recorded((1, 0)), recorded((0, 1))])  # no weight in common, but one identity


def test_one_commit_loaded_in_two_dtypes() -> None:
    def loaded(dtype: str, ranks: tuple[int, int], letter: str) -> Patch:
        tensors = {name: letter * 64 for name, rank in zip((DOWN, OUT), ranks, strict=True) if rank}
        return recorded(ranks, base={"tensors": tensors, "dtype": dtype}, commit="c" * 40)

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
    foreign = recorded((1, 1), base={}, foreign={})
    whole = compose([foreign, recorded()])
    assert whole.record["base"]["tensors"] == HASHES
    assert whole.record["composed_of"][0]["base_verified"] is False
    assert "unverified" not in whole.record["base"]
    assert compose([foreign, recorded((1, 0))]).record["base"]["unverified"] == [OUT]
    with pytest.raises(PatchError, match="owner/base and elsewhere"):
        compose([recorded(), replace(foreign, base="elsewhere")])
    with pytest.raises(ConfigError):
        compose([])
    with pytest.raises(ConfigError):
        compose([recorded()], rank=-1)


@pytest.mark.parametrize("rule", ["stop", "first", "last"])
def test_the_same_patch_twice_is_refused(rule: Literal["stop", "first", "last"]) -> None:
    one, again = recorded(seed=1), replace(recorded(seed=1), record={**recorded().record, "created": "later"})
    with pytest.raises(ConfigError, match=r"a and c are the same patch \([0-9a-f]{12}\)"):
        composed([one, recorded(seed=2), again], on_conflict=rule, names=("a", "b", "c"))


def test_the_sum_knows_how_large_the_weights_are() -> None:
    one = recorded((1, 1), 1, sites={DOWN: {"weight_norm": 3.5, "budget": 1}})
    two = recorded(
        (1, 1), 2, sites={DOWN: {"weight_norm": 3.5}, OUT: {"weight_norm": 2.0}, "x": {"weight_norm": 1}}
    )
    whole = compose([one, two])
    assert whole.record["sites"] == {DOWN: {"weight_norm": 3.5}, OUT: {"weight_norm": 2.0}}
    assert "sites" not in compose([recorded(seed=1), recorded(seed=2)]).record


def test_a_chat_template_is_kept_where_all_parts_were_made_in_it() -> None:
    asked = {"system": "Be brief."}
    parts = [recorded(seed=1, chat=asked), recorded(seed=2, chat=asked), recorded(seed=3)]
    assert compose(parts[:2]).record["chat"] == asked
    assert "chat" not in compose(parts).record
    assert "chat" not in compose([parts[0], recorded(seed=4, chat={"system": ""})]).record
