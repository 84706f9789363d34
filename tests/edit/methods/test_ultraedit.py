"""UltraEdit: the published equations on weights that really change, running statistics, owners of rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from hubedit.edit.rows import Row, edit_rows
from hubedit.errors import ConfigError
from hubedit.evaluate.forced import forced
from hubedit.linalg import RunningScale, ridge_rows
from hubedit.model.editable import EditableModel
from hubedit.model.sites import Site
from tests.edit.editing import FACTS
from tests.edit.methods.dense import add, changed, edited, near, settings

Editable = Callable[..., EditableModel]


def features(em: EditableModel, rows: Sequence[Row], site: Site) -> Tensor:
    """(t, d_in + d_out): input and output gradient at each token that predicts one of an answer, row by row,
    by torch's own backward pass on the weight."""
    name = next(n for n, m in em.model.named_modules() if m is em.site(site))
    weight = em.model.get_parameter(f"{name}.weight").requires_grad_()
    found = []
    for r in rows:
        seen: list[Tensor] = []

        def keep(module: object, args: tuple[Tensor, ...], out: Tensor, to: list[Tensor] = seen) -> None:
            out.retain_grad()
            to += [args[0][0], out]

        handle = em.site(site).register_forward_hook(keep)
        logits = em.model(input_ids=torch.tensor([r.ids])).logits[0]
        handle.remove()
        count = len(r.labels)
        loss = cross_entropy(logits[-count:], torch.tensor(r.labels), reduction="sum")
        torch.autograd.backward(loss)
        inputs, output = seen
        assert output.grad is not None
        found.append(torch.cat([inputs[-count:].detach(), output.grad[0, -count:]], 1).double())
    weight.requires_grad_(False).grad = None
    return torch.cat(found)


def equations(em: EditableModel, batches: Sequence[list[Row]], sites: Sequence[Site]) -> list[Tensor]:
    """Each site's change (d_out, d_in), all sites of a batch from the same states; weights of one shape share
    what they are normalised with."""
    own = changed(em)
    before = [own.weight(s).detach().clone() for s in sites]
    width, seen = em.d_in(sites[0]), torch.empty(0)
    for rows in batches:
        new = [features(own, rows, site) for site in sites]
        seen = torch.cat([seen, *new])
        for site, own_rows in zip(sites, new, strict=True):
            normed = (own_rows - seen.mean(0)) / (seen.std(0) + torch.finfo(torch.float32).eps)
            v = -1e-6 * (normed[:, :width] ** 2).sum(1, keepdim=True) * normed[:, width:]
            h = own_rows[:, :width]
            shift = torch.linalg.solve(h.T @ h + torch.eye(width, dtype=h.dtype), h.T @ v)
            add(own, site, shift if em.family.conv1d else shift.T)
    return [(own.weight(s).detach() - b).double() for s, b in zip(sites, before, strict=True)]


@pytest.mark.parametrize("size", [0, 2])
@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_it_is_the_published_equations(family: str, size: int, editable: Editable, tmp_path: Path) -> None:
    em, config = editable(family), settings("ultraedit", "1-2", batch_size=size)
    edit = edited(em, config, tmp_path)
    sites = [Site(1, "mlp"), Site(2, "mlp")]
    step = size or len(FACTS)
    batches = [edit_rows(em, FACTS[at : at + step], ()) for at in range(0, len(FACTS), step)]
    assert set(edit.factors) == set(sites) and edit.targets is None and edit.alpha == {}
    for site, expected in zip(sites, equations(em, batches, sites), strict=True):
        near(edit.factors[site].dense(), expected, 2e-3)


def test_a_larger_step_makes_the_answers_likely(editable: Editable, tmp_path: Path) -> None:
    em, config = editable("qwen2"), settings("ultraedit", "1-2")
    edit = edited(em, replace(config, targets=replace(config.targets, step=1e-3)), tmp_path)

    def likelihood(model: EditableModel) -> float:
        return sum(s.logp for s in forced(model, [(f.prompt, f.target) for f in FACTS]).values())

    assert likelihood(em.with_patch(edit.factors)) > likelihood(em) + 1


def test_a_row_belongs_to_the_fact_of_its_token(editable: Editable, tmp_path: Path) -> None:
    em = editable("llama")
    edit = edited(em, settings("ultraedit", "1", batch_size=3), tmp_path)
    rows = edit_rows(em, FACTS, ())
    assert edit.rows == tuple(r.fact for r in rows for _ in r.labels)
    assert edit.factors[Site(1, "mlp")].rank == len(edit.rows) > len(FACTS)


def test_the_layers_are_the_last_quarter_but_the_last(editable: Editable, tmp_path: Path) -> None:
    em = editable("llama")
    assert edited(em, settings("ultraedit", "auto"), tmp_path).layers == (em.num_layers - 2,)


def test_one_token_alone_has_no_deviation(editable: Editable, tmp_path: Path) -> None:
    em = editable("llama")
    one = next(f for f in FACTS if len(edit_rows(em, [replace(f, target="a")], ())[0].labels) == 1)
    with pytest.raises(ConfigError, match="there is one"):
        edited(em, settings("ultraedit", "1"), tmp_path, [replace(one, target="a")])


def test_parts_merge_to_the_moments_of_all_rows() -> None:
    rows = torch.randn(11, 3, dtype=torch.float64) * torch.tensor([1.0, 5.0, 0.0]) + 2
    scale = RunningScale(3)
    for part in (rows[:1], rows[1:7], rows[7:]):
        scale.update(part)
    torch.testing.assert_close(scale.mean, rows.mean(0))
    torch.testing.assert_close((scale.square / 10).sqrt(), rows.std(0))
    assert torch.equal(scale.normalise(rows)[:, 2], torch.zeros(11, dtype=torch.float64))


@pytest.mark.parametrize("count", [3, 9])
def test_the_ridge_is_solved_by_the_shorter_side(count: int) -> None:
    k = torch.randn(count, 5, dtype=torch.float64)
    expected = k @ torch.linalg.inv(k.T @ k + 0.5 * torch.eye(5, dtype=torch.float64))
    torch.testing.assert_close(ridge_rows(k, 0.5), expected)
