"""Editing on top of a patch: one patch that does both, and who is protected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from hubedit.cache import Cache
from hubedit.edit.compute import compute
from hubedit.edit.rows import edit_rows
from hubedit.edit.solve.keys import at_subject
from hubedit.edit.statistics.second_moments import second_moments
from hubedit.errors import PatchError
from hubedit.facts import Fact
from hubedit.model.editable import EditableModel
from hubedit.model.hooks import run
from hubedit.model.sites import Site
from hubedit.model.tokens import encode, pad
from hubedit.patch import Patch
from hubedit.patch.identity import patch_id
from hubedit.patch.ontop import protected, replaced, stacked
from hubedit.patch.owners import owners
from hubedit.pipeline import apply_facts
from hubedit.progress import Silent
from tests.quick import FACTS, QUICK

Editable = Callable[..., EditableModel]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft")

LATER = (Fact("The capital of Japan is", "Japan", "Paris", "later"), replace(FACTS[1], target="Ulm"))


@pytest.fixture
def older(editable: Editable, tmp_path: Path) -> Patch:
    apply_facts(editable(), FACTS, QUICK, out=tmp_path / "old", cache=Cache(tmp_path / "cache"))
    return Patch.load(tmp_path / "old")


def logits(em: EditableModel, text: str) -> torch.Tensor:
    found = run(em, pad([encode(em.tokenizer, text).ids], em.pad_id), logits=True).logits
    assert found is not None
    return found


def test_the_result_does_both_and_is_read_by_peft(editable: Editable, older: Patch, tmp_path: Path) -> None:
    em = editable()
    bare = logits(em, "The capital of Japan is")
    apply_facts(em, LATER[:1], QUICK, out=tmp_path / "new", on=older, cache=Cache(tmp_path / "cache"))
    both = Patch.load(tmp_path / "new")
    assert [f.prompt for f in both.facts] == [f.prompt for f in (*FACTS, LATER[0])]
    assert both.record["on"] == {"id": patch_id(older), "facts": 2}
    for module, factor in both.factors.items():
        rank = older.factors[module].rank
        torch.testing.assert_close(factor.B[:, :rank], older.factors[module].B)
        torch.testing.assert_close(factor.A[:rank], older.factors[module].A)
    rows, before = owners(both), owners(older)
    assert rows is not None and before is not None
    for module, own in rows.items():
        assert own[: len(before[module])] == before[module] and set(own[len(before[module]) :]) == {2}
    for module, told in both.record["sites"].items():
        # of the whole change, as the card and the summary show it
        assert told["norm"] == pytest.approx(both.pairs[module].norm())
        assert told["relative_norm"] == pytest.approx(told["norm"] / told["weight_norm"])
    assert set(both.record["sites"]) == set(both.pairs)
    torch.testing.assert_close(logits(em, "The capital of Japan is"), bare)
    base = AutoModelForCausalLM.from_pretrained(em.path, dtype=torch.float32)
    adapted = PeftModel.from_pretrained(base, str(tmp_path / "new")).eval()
    patched = em.with_patch(both.by_site(em))
    with torch.no_grad():
        ids = torch.tensor([encode(patched.tokenizer, "The capital of Japan is").ids])
        torch.testing.assert_close(adapted(input_ids=ids).logits, logits(patched, "The capital of Japan is"))


def test_the_new_facts_meet_the_edited_model(editable: Editable, older: Patch) -> None:
    em = editable()
    edited = em.with_patch(older)
    assert edited.identity != em.identity and edited.model is em.model
    assert edited.identity == em.with_patch(older).identity
    moved = logits(edited, "The capital of France is")
    assert not torch.allclose(moved, logits(em, "The capital of France is"))


def test_older_facts_are_protected_unless_they_are_edited_again(older: Patch) -> None:
    assert protected(older, LATER) == (older.facts[0],)
    assert protected(None, LATER) == () == replaced(None, LATER)
    assert replaced(older, LATER) == (older.facts[1],)


def test_what_older_facts_give_is_preserved(editable: Editable, older: Patch, tmp_path: Path) -> None:
    """At their own keys the new update is smaller than that of an edit that knows nothing of them."""
    em, new, site = editable(), LATER[:1], Site(1, "attention")
    stood = em.with_patch(older)
    keys = at_subject(stood, edit_rows(stood, older.facts, ()), 1, [site]).inputs[site].float()
    knowing, blind = (
        compute(stood, new, replace(QUICK, lam=0.05), earlier=kept, cache=Cache(tmp_path / "cache"))
        for kept in (protected(older, new), ())
    )
    change = [float(edit.factors[site].apply(keys).norm()) for edit in (knowing, blind)]
    assert change[0] < 0.5 * change[1]


def test_a_fact_edited_again_leaves_the_list(older: Patch) -> None:
    new = replace(older, facts=LATER)
    whole = stacked(older, new)
    assert whole.facts == (older.facts[0], *LATER)
    # what the older patch wrote for it belongs to the fact that took its place
    assert owners(whole) == dict.fromkeys(whole.pairs, (0, 2, 1, 2))
    assert [step["facts"] for step in whole.record["steps"]] == [1, 2]
    assert all(f.rank == 2 * older.factors[m].rank for m, f in whole.factors.items())


def test_what_cannot_be_protected_is_refused(editable: Editable, older: Patch) -> None:
    with pytest.raises(PatchError, match="without its facts"):
        protected(replace(older, facts=()), LATER)
    other = replace(
        older, record={**older.record, "base": {"tensors": dict.fromkeys(older.factors, "0" * 64)}}
    )
    with pytest.raises(PatchError, match="is not the model"):
        editable().with_patch(other)


def test_drift_and_norm_are_those_of_the_whole_patch(
    editable: Editable, older: Patch, tmp_path: Path
) -> None:
    """Each step tells its own, and those of all steps up to it."""
    em, cache = editable(), Cache(tmp_path / "cache")
    apply_facts(em, LATER, QUICK, out=tmp_path / "new", on=older, cache=cache)
    both = Patch.load(tmp_path / "new")
    moments = second_moments(em, both.by_site(em), QUICK.stats, cache, Silent())

    def drift(change: torch.Tensor, site: Site) -> float:
        c, weight = moments[site].matrix.double(), em.weight(site).double()
        of = [torch.trace(m.double() @ c @ m.double().T) for m in (change, weight)]
        return float(of[0] / of[1])

    whole, own = {}, {}
    for module, site in both.sites(em).items():
        change, rank = both.factors[module].dense(), older.factors[module].rank
        whole[module] = drift(change, site)
        own[module] = drift(change - older.factors[module].dense(), site)
        assert both.record["sites"][module]["drift"] == pytest.approx(whole[module], rel=1e-4)
        assert both.factors[module].rank > rank
    first, second = both.record["steps"]
    assert second["drift"] == pytest.approx(max(own.values()), rel=1e-4)
    assert second["whole"]["drift"] == pytest.approx(max(whole.values()), rel=1e-4)
    sizes = [entry["relative_norm"] for entry in both.record["sites"].values()]
    assert second["whole"]["norm"] == max(sizes) != second["norm"]
    assert first["whole"] == {"drift": first["drift"], "norm": first["norm"]}


def test_more_rows_than_the_matrix_is_wide_cost_no_more(editable: Editable, older: Patch) -> None:
    """A long stack is computed with at most as many rows as the matrix has, and gives the same."""
    em = editable()
    site, factor = next(iter(older.by_site(em).items()))
    many = sum((factor * 0.01 for _ in range(2 * em.hidden_size)), start=factor)
    stood, text = em.with_patch({site: many}), "The capital of Japan is"
    assert many.rank > min(many.shape) == stood.change[site].rank
    same = em.with_patch({site: factor * (1 + 0.02 * em.hidden_size)})
    torch.testing.assert_close(logits(stood, text), logits(same, text), rtol=1e-3, atol=1e-4)
