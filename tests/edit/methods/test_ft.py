"""LocFT-BF: the authors' loop on a weight that really changes, its factors, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from hubedit.config import EditConfig
from hubedit.edit.methods.ft import check_fits, ended, exact
from hubedit.edit.rows import Row, edit_rows
from hubedit.errors import ConfigError
from hubedit.evaluate.forced import forced
from hubedit.model.editable import EditableModel
from hubedit.model.sites import Site
from tests.edit.editing import FACTS
from tests.edit.methods.dense import changed, edited, near, settings

Editable = Callable[..., EditableModel]
SITE = Site(1, "mlp")


def authors(em: EditableModel, config: EditConfig, rows: list[Row]) -> Tensor:
    """The change of the weight by torch's Adam on the weight itself, one row at a time."""
    own = changed(em)
    name = next(n for n, m in own.model.named_modules() if m is own.site(SITE))
    weight = own.model.get_parameter(f"{name}.weight").requires_grad_()
    before = own.weight(SITE).detach().clone()
    adam = torch.optim.Adam([weight], lr=config.targets.step)
    generator = torch.Generator().manual_seed(config.seed)
    for _ in range(config.targets.steps):
        order = torch.randperm(len(rows), generator=generator).tolist()
        for at in range(0, len(rows), config.batch_size):
            adam.zero_grad()
            losses = []
            for r in (rows[n] for n in order[at : at + config.batch_size]):
                logits = own.model(input_ids=torch.tensor([r.ids])).logits[0, -len(r.labels) :]
                losses.append(cross_entropy(logits, torch.tensor(r.labels)))
            torch.autograd.backward(torch.stack(losses).mean())
            adam.step()
    return (own.weight(SITE).detach() - before).double()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_it_is_the_authors_loop(family: str, editable: Editable, tmp_path: Path) -> None:
    em = editable(family)
    config = settings("ft", "1", batch_size=3, seed=5)
    config = replace(config, targets=replace(config.targets, steps=3))
    edit = edited(em, config, tmp_path)
    assert set(edit.factors) == {SITE} and edit.targets is None and edit.alpha == {}
    expected = authors(em, config, ended(em, edit_rows(em, FACTS, ())))
    near(edit.factors[SITE].dense(), expected, 1e-2)


def test_the_answer_becomes_likely_and_so_does_its_end(editable: Editable, tmp_path: Path) -> None:
    em, config = editable("qwen2"), settings("ft", "1")
    edit = edited(em, replace(config, targets=replace(config.targets, steps=40, step=5e-3)), tmp_path)
    rows = ended(em, edit_rows(em, FACTS, ()))

    def likelihood(em: EditableModel) -> tuple[float, float]:
        answers = sum(s.logp for s in forced(em, [(f.prompt, f.target) for f in FACTS]).values())
        with torch.no_grad(), em.active() as model:
            last = [model(input_ids=torch.tensor([r.ids])).logits[0, -1].log_softmax(-1) for r in rows]
        return answers, sum(float(x[em.tokenizer.eos_token_id]) for x in last)

    before, after = likelihood(em), likelihood(em.with_patch(edit.factors))
    assert after[0] > before[0] + 1 and after[1] > before[1] + 1


def test_a_loss_that_is_small_enough_ends_it(editable: Editable, tmp_path: Path) -> None:
    config = settings("ft", "1")
    config = replace(config, targets=replace(config.targets, loss=100.0))
    edit = edited(editable("qwen2"), config, tmp_path)
    assert float(edit.factors[SITE].norm()) == 0


def test_facts_go_in_shuffled_mini_batches(editable: Editable, tmp_path: Path) -> None:
    em = editable("qwen2")
    found = {
        (size, seed): edited(em, settings("ft", "1", batch_size=size, seed=seed), tmp_path)
        .factors[SITE]
        .dense()
        for size, seed in ((2, 0), (2, 1), (0, 0), (100, 0))
    }
    assert not torch.allclose(found[2, 0], found[2, 1])
    assert not torch.allclose(found[2, 0], found[0, 0])
    torch.testing.assert_close(found[0, 0], found[100, 0])


def test_its_layer_needs_no_trace(editable: Editable, tmp_path: Path) -> None:
    em = editable("llama")
    edit = edited(em, settings("ft", "auto"), tmp_path)
    assert edit.layers == (em.num_layers // 3,) and edit.trace is None
    with pytest.raises(ConfigError, match="ft edits one layer"):
        edited(em, settings("ft", "1-2"), tmp_path)


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_factors_are_the_matrix_at_its_own_rank(rank: int) -> None:
    matrix = (torch.randn(6, rank, dtype=torch.float64) @ torch.randn(rank, 9, dtype=torch.float64)).float()
    factor = exact(matrix)
    assert factor.rank == rank
    near(factor.dense(), matrix.double(), 1e-6)


def test_what_does_not_fit_is_refused() -> None:
    check_fits(1000, 16000)
    with pytest.raises(ConfigError, match=r"takes 0\.7 GB beside the model, and 0\.5 GB are free"):
        check_fits(45_000_000, 500_000_000)


def test_a_tokenizer_without_an_end_is_refused(editable: Editable) -> None:
    em = editable("llama")
    rows = edit_rows(em, FACTS, ())
    end = em.tokenizer.eos_token
    em.tokenizer.eos_token = None
    try:
        with pytest.raises(ConfigError, match="no end-of-sequence token"):
            ended(em, rows)
    finally:
        em.tokenizer.eos_token = end
