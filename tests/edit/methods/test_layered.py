"""MEMIT, EMMET and AlphaEdit against their equations written out densely."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hubedit.config import EditConfig
from hubedit.edit.methods.context_templates import contexts_of, generated_contexts, published_rows
from hubedit.edit.result import Edit
from hubedit.edit.rows import Row
from hubedit.edit.solve.keys import at_subject, bare
from hubedit.errors import ConfigError
from hubedit.model.editable import EditableModel
from hubedit.model.sites import Site
from hubedit.model.tokens import decode
from tests.edit.editing import FACTS
from tests.edit.methods import dense
from tests.edit.methods.dense import edited, moments, near, ridged, settings

Editable = Callable[..., EditableModel]
LAYERS = (1, 2)


def rows_of(em: EditableModel, config: EditConfig) -> list[Row]:
    return published_rows(em, FACTS, contexts_of(em, config))[0]


def densely(
    em: EditableModel, config: EditConfig, edit: Edit, solve: Callable[[Site, Tensor, Tensor], Tensor]
) -> dict[Site, Tensor]:
    assert edit.targets is not None
    return dense.through_layers(dense.changed(em), rows_of(em, config), edit.targets.delta, LAYERS, solve)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
def test_memit_is_its_equation(family: str, editable: Editable, tmp_path: Path) -> None:
    em, config = editable(family), settings("memit", "1-2", lam=20.0)
    edit = edited(em, config, tmp_path)

    def solve(site: Site, k: Tensor, r: Tensor) -> Tensor:
        c = ridged(moments(em, config, tmp_path, site))
        change: Tensor = r.T @ k @ torch.linalg.inv(config.lam * c + k.T @ k)
        return change

    expected = densely(em, config, edit, solve)
    assert set(edit.factors) == set(expected) == {Site(n, "mlp") for n in LAYERS}
    for site, change in expected.items():
        near(edit.factors[site].dense(), change)
        assert edit.factors[site].rank == len(FACTS)
    assert set(edit.alpha.values()) == {0.0}


@pytest.mark.parametrize("family", ["llama", "granite", "qwen3_5"])
def test_the_residual_stream_moves_as_wanted(family: str, editable: Editable, tmp_path: Path) -> None:
    """Also where it adds a multiple of what a site writes (Granite), and in linear attention (Qwen 3.5)."""
    em = editable(family)
    config = settings("emmet", "2", lam=3.0, l2=0.0)
    config = replace(config, targets=replace(config.targets, contexts=0))
    edit = edited(em, config, tmp_path)
    assert edit.targets is not None
    rows = rows_of(em, config)
    plain = bare(rows, len(FACTS))
    before, after = (plain @ at_subject(m, rows, 2).hidden for m in (em, em.with_patch(edit.factors)))
    near(after - before, edit.targets.delta.double())


@pytest.mark.parametrize("l2", [0.0, 0.1])
def test_emmet_is_its_equation(l2: float, editable: Editable, tmp_path: Path) -> None:
    em, config = editable("llama"), settings("emmet", "1-2", lam=3.0, l2=l2)
    edit = edited(em, config, tmp_path)
    met: dict[Site, float] = {}

    def solve(site: Site, k: Tensor, r: Tensor) -> Tensor:
        inverse = torch.linalg.inv(config.lam * ridged(moments(em, config, tmp_path, site)))
        middle = k @ inverse @ k.T + l2 * torch.eye(len(k), dtype=torch.float64)
        change: Tensor = r.T @ torch.linalg.inv(middle) @ k @ inverse
        met[site] = float((edit.factors[site].dense().double() @ k.T - r.T).norm() / r.norm())
        return change

    expected = densely(em, config, edit, solve)
    for site, change in expected.items():
        near(edit.factors[site].dense(), change)
        if l2 == 0:
            assert met[site] < 1e-4, "the constraint holds: (W + dW) K = V"
        else:
            assert met[site] > 1e-4


def free(c: Tensor, bound: float) -> Tensor:
    """P, by a singular value decomposition as the authors compute it."""
    u, s, _ = torch.linalg.svd(c)
    chosen: Tensor = u[:, s < bound]
    return chosen @ chosen.T


@pytest.mark.parametrize("threshold", ["0.06", "5%"])
def test_alphaedit_is_its_equation_and_leaves_preserved_keys_alone(
    threshold: str, editable: Editable, tmp_path: Path
) -> None:
    em, config = editable("llama"), settings("alphaedit", "1-2", null_space=threshold, l2=0.5)
    edit = edited(em, config, tmp_path)

    def projection(site: Site) -> Tensor:
        c = moments(em, config, tmp_path, site)
        return free(c, 0.06 if threshold == "0.06" else 0.05 * float(torch.linalg.eigvalsh(c)[-1]))

    def solve(site: Site, k: Tensor, r: Tensor) -> Tensor:
        p = projection(site)
        eye = torch.eye(len(p), dtype=torch.float64)
        found: Tensor = torch.linalg.solve(p @ (k.T @ k) + config.l2 * eye, p @ k.T @ r)
        return found.T

    for site, change in densely(em, config, edit, solve).items():
        p = projection(site)
        assert 0 < float(torch.trace(p)) < len(p)
        near(edit.factors[site].dense(), change)
        preserved = torch.eye(len(p), dtype=torch.float64) - p
        left = edit.factors[site].dense().double() @ preserved
        assert float(left.norm()) < 1e-6 * float(change.norm())
        assert edit.factors[site].rank == len(FACTS)


def test_a_threshold_that_frees_nothing_is_explained(editable: Editable, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no direction of site") as caught:
        edited(editable("llama"), settings("alphaedit", "1", null_space="1e-30"), tmp_path)
    assert "--null-space" in caught.value.hint


@pytest.mark.parametrize("tokenizer", ["byte_bpe", "metaspace_bos"])
def test_what_is_optimised_is_the_published_prompts(tokenizer: str, editable: Editable) -> None:
    em = editable("llama", tokenizer)
    contexts = generated_contexts(em, 5, seed=0)
    assert len(contexts) == 5 and all(c.endswith(". ") for c in contexts)
    assert contexts == generated_contexts(em, 5, seed=0) != generated_contexts(em, 5, seed=1)
    assert contexts[0].startswith("The")
    assert len(generated_contexts(em, 20, seed=0)) == 20 and generated_contexts(em, 0, seed=0) == []
    rows, essence = published_rows(em, FACTS, contexts)
    assert len(rows) == 6 * len(FACTS) and not any(r.preserve for r in rows)
    for n, (fact, r) in enumerate(zip(FACTS, essence, strict=True)):
        assert (r.fact, r.preserve, r.last, r.first_scored) == (n, True, len(r.ids) - 1, len(r.ids) - 1)
        assert decode(em.tokenizer, r.ids).strip() == fact.subject
