"""LoRA fine-tuning: what it lowers, its rank, and that a seed fixes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hubedit.edit.methods.training import summed_nll
from hubedit.edit.rows import edit_rows
from hubedit.evaluate.forced import forced
from hubedit.model.editable import EditableModel
from hubedit.model.sites import Site
from tests.edit.editing import FACTS
from tests.edit.methods.dense import edited, settings

Editable = Callable[..., EditableModel]


def likelihood(em: EditableModel) -> float:
    return sum(s.logp for s in forced(em, [(f.prompt, f.target) for f in FACTS]).values())


@pytest.mark.parametrize("family", ["qwen2", "gpt2"])
def test_the_targets_become_likelier(family: str, editable: Editable, tmp_path: Path) -> None:
    em, config = editable(family), settings("lora", "1-2")
    edit = edited(em, config, tmp_path)
    assert set(edit.factors) == {Site(n, kind) for n in (1, 2) for kind in ("attention", "mlp")}
    assert all(f.rank == 8 and not f.A.requires_grad for f in edit.factors.values())
    before = likelihood(em)
    patched = em.with_patch(edit.factors)
    assert likelihood(patched) > before + 0.1
    assert edit.targets is None and edit.alpha == {}


def test_a_step_is_adam_s_on_the_mean_likelihood(editable: Editable, tmp_path: Path) -> None:
    """Adam's first step moves every number by the learning rate against its gradient's sign; A's gradient is
    zero while B is."""
    em, config = editable("qwen2"), settings("lora", "1", rank=2, seed=3)
    config = replace(config, targets=replace(config.targets, steps=1))
    edit = edited(em, config, tmp_path)
    factor = edit.factors[Site(1, "mlp")]
    assert factor.rank == 2
    assert float(factor.A.abs().max()) <= em.d_in(Site(1, "mlp")) ** -0.5
    moved = factor.B[factor.B != 0]
    torch.testing.assert_close(moved.abs(), torch.full_like(moved, 4 * 5e-3), rtol=1e-3, atol=0)
    rows = edit_rows(em, FACTS, ())
    with torch.no_grad():
        mean = float(summed_nll(em, rows)) / len(rows)
    assert mean == pytest.approx(-likelihood(em) / len(FACTS), rel=1e-4)


def test_a_seed_fixes_it(editable: Editable, tmp_path: Path) -> None:
    em = editable("qwen2")
    one, same, other = (edited(em, settings("lora", "1", seed=n), tmp_path) for n in (1, 1, 2))
    site = Site(1, "mlp")
    assert torch.equal(one.factors[site].B, same.factors[site].B)
    assert not torch.equal(one.factors[site].A, other.factors[site].A)


def test_batches_go_on_training_the_same_factors(editable: Editable, tmp_path: Path) -> None:
    em = editable("qwen2")
    two = edited(em, settings("lora", "1", batch_size=2), tmp_path)
    first = edited(em, settings("lora", "1"), tmp_path, FACTS[:2])
    site = Site(1, "mlp")
    assert two.factors[site].rank == first.factors[site].rank == 8
    assert not torch.equal(two.factors[site].B, first.factors[site].B)
