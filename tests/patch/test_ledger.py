"""The steps of a patch: who owns what, and that a step or a fact leaves while the rest stays to the bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hubedit.errors import PatchError
from hubedit.facts import Fact
from hubedit.patch import Patch
from hubedit.patch.compose import compose
from hubedit.patch.identity import patch_id
from hubedit.patch.ledger import steps_of, without_facts, without_step
from hubedit.patch.ontop import stacked
from hubedit.patch.owners import owners
from tests.patch.parts import DOWN, OUT
from tests.patch.recorded import edited, recorded

NAMES = "abcdefgh"


def dense(patch: Patch) -> dict[str, torch.Tensor]:
    return {m: patch.factors[m].dense() if m in patch.factors else torch.zeros(6, 24) for m in (DOWN, OUT)}


def near(patch: Patch, *parts: Patch) -> None:
    found = dense(patch)
    for module in (DOWN, OUT):
        torch.testing.assert_close(found[module], torch.stack([dense(p)[module] for p in parts]).sum(0))


def one(name: str, target: str, seed: int) -> Patch:
    return edited([(name, target)], seed, method="memit")


def test_a_step_leaves_and_the_others_stay() -> None:
    parts = [one(name, "x", n) for n, name in enumerate("abc")]
    whole = stacked(stacked(parts[0], parts[1]), parts[2])
    assert [s["id"] for s in steps_of(whole)] == [patch_id(p) for p in parts]
    less = without_step(whole, patch_id(parts[1])[:8])
    near(less, parts[0], parts[2])
    assert less.facts == (*parts[0].facts, *parts[2].facts)
    assert [s["id"] for s in steps_of(less)] == [patch_id(parts[0]), patch_id(parts[2])]
    assert without_step(whole).facts == (*parts[0].facts, *parts[1].facts)
    near(without_step(whole), *parts[:2])


def test_a_fact_edited_again_comes_back_with_its_step() -> None:
    old, new, third = one("a", "x", 0), one("a", "y", 1), one("a", "z", 2)
    whole = stacked(stacked(old, new), third)
    assert [f.target for f in whole.facts] == ["z"]
    assert owners(whole) == {DOWN: (0, 0, 0), OUT: (0, 0, 0)}
    back = without_step(whole)
    assert [f.target for f in back.facts] == ["y"]
    near(back, old, new)
    assert [f.target for f in without_step(back).facts] == ["x"]
    # the middle one leaves first: the newest then stands on the oldest
    middle = without_step(whole, patch_id(new))
    assert [f.target for f in middle.facts] == ["z"]
    near(middle, old, third)
    assert [f.target for f in without_step(middle).facts] == ["x"]


def test_a_withdrawn_fact_takes_its_older_versions_along() -> None:
    first, again = edited([("a", "x"), ("b", "x")], 0, method="memit"), one("a", "y", 1)
    whole = stacked(first, again)
    assert [f.target for f in whole.facts] == ["x", "y"]
    less = without_facts(whole, [1])
    assert [f.subject for f in less.facts] == ["b"]
    for module, pair in less.pairs.items():
        assert np.array_equal(pair.A, first.pairs[module].A[1:]), "b's rows are as they were"
    assert "metrics" not in less.record and less.record["cut_from"] == patch_id(whole)[:12]


def test_what_cannot_leave_is_refused() -> None:
    whole = stacked(one("a", "x", 0), one("b", "x", 1))
    cut, _ = whole.truncate(1)
    with pytest.raises(PatchError, match="no single facts"):
        without_facts(cut, [0])
    with pytest.raises(PatchError, match="no single steps"):
        without_step(cut)
    with pytest.raises(PatchError, match="no step begins with 'zz'"):
        without_step(whole, "zz")
    with pytest.raises(PatchError, match="nothing of the patch would be left"):
        without_facts(whole, [0, 1])
    joint = edited([("a", "x")], 0, method="joint")
    river = recorded((1, 1), 1, [Fact("The river of a is", "a", "Po")], method="joint")
    with pytest.raises(PatchError, match="about the same subject"):
        without_facts(stacked(joint, river), [0])


def test_a_hundred_steps_are_saved_and_loaded_and_taken_apart(tmp_path: Path) -> None:
    parts = [one(f"n{n}", "x", n) for n in range(100)]
    whole = parts[0]
    for part in parts[1:]:
        whole = stacked(whole, part)
    whole.save(tmp_path / "whole")
    loaded = Patch.load(tmp_path / "whole")
    assert [s["id"] for s in steps_of(loaded)] == [patch_id(p) for p in parts]
    near(without_step(loaded, patch_id(parts[50])), *parts[:50], *parts[51:])
    near(without_facts(loaded, [99]), *parts[:99])
    both = compose([loaded, one("later", "x", 101)])
    assert len(steps_of(both)) == 101
    near(without_step(both), whole)


def test_figures_of_the_whole_leave_with_what_they_were_measured_with() -> None:
    sites = {
        m: {"layer": 1, "kind": "mlp", "weight_norm": 2.0, "norm": 9.0, "drift": 0.5} for m in (DOWN, OUT)
    }
    parts = [replace(p, record={**p.record, "sites": sites}) for p in (one(n, "x", ord(n)) for n in "abc")]
    whole = stacked(stacked(parts[0], parts[1]), parts[2])
    steps = [step | {"whole": {"drift": 0.1 * n}} for n, step in enumerate(steps_of(whole), 1)]
    whole = replace(whole, record={**whole.record, "steps": steps})
    for less, left in (
        (without_step(whole), [True, True]),
        (without_step(whole, patch_id(parts[1])), [True, False]),
        (without_step(whole, patch_id(parts[0])), [False, False]),
        (without_facts(whole, [1]), [True, False, False]),
        (without_facts(whole, [2]), [True, True, False]),
        (compose([whole, one("d", "x", 9)]), [False] * 4),
    ):
        assert ["whole" in step for step in steps_of(less)] == left
    # the size of a weight's change is that of what is left, and its drift is not known
    for module, told in without_facts(whole, [1]).record["sites"].items():
        norm = without_facts(whole, [1]).pairs[module].norm()
        assert told == {
            "layer": 1,
            "kind": "mlp",
            "weight_norm": 2.0,
            "norm": norm,
            "relative_norm": norm / 2,
        }


def test_replaced_facts_are_kept_out_with_the_facts(tmp_path: Path) -> None:
    stacked(one("Atlantis", "x", 0), one("Atlantis", "y", 1)).save(tmp_path / "p", with_facts=False)
    assert "Atlantis" not in (tmp_path / "p" / "hubedit.json").read_text()


@given(
    st.lists(st.tuples(st.sampled_from(["on", "step", "fact", "compose"]), st.integers(0, 99)), max_size=12)
)
def test_random_sequences_keep_the_books(moves: list[tuple[str, int]]) -> None:
    """Against a plain model of the ledger: for each step its change, and who edited what."""
    seed = 0
    patch = one("a", "t0", seed)
    # (id, name, target, change), oldest first; a name's newest entry is the fact that holds
    books = [(patch_id(patch), "a", "t0", patch)]
    for kind, draw in moves:
        seed += 1
        name = NAMES[draw % len(NAMES)]
        if kind in ("on", "compose"):
            if kind == "compose" and name in {n for _, n, _, _ in books}:
                continue
            new = one(name, f"t{seed}", seed)
            patch = stacked(patch, new) if kind == "on" else compose([patch, new])
            books.append((patch_id(new), name, f"t{seed}", new))
        elif kind == "step" and len(books) > 1:
            gone = books.pop(draw % len(books))
            patch = without_step(patch, gone[0])
        elif kind == "fact" and len({n for _, n, _, _ in books}) > 1:
            at = draw % len(patch.facts)
            name = patch.facts[at].subject
            patch = without_facts(patch, [at])
            books = [b for b in books if b[1] != name]
        held = {name: target for _, name, target, _ in books}
        assert {f.subject: f.target for f in patch.facts} == held and len(patch.facts) == len(held)
        near(patch, *(change for _, _, _, change in books))
        rows = owners(patch)
        assert rows is not None
        for own in rows.values():
            subjects = [patch.facts[n].subject for n in own]
            assert subjects == [name for _, name, _, _ in books]
