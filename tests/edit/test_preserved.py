"""What a site preserves: the corpus, and what stands beside the batch's own edited tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hubedit.edit.rows import Row, edit_rows, row
from hubedit.edit.spread import Budget, Spreader
from hubedit.linalg import Moments
from hubedit.model.editable import EditableModel
from hubedit.model.hooks import run
from hubedit.model.sites import Site, SiteKind
from hubedit.model.tokens import pad
from tests.edit.editing import FACTS, moments_of
from tests.edit.test_spread import CONTEXTS, asked

Editable = Callable[..., EditableModel]


def beside(em: EditableModel, rows: Sequence[Row], site: Site) -> Tensor:
    """E[k k^T] over every token of the rows but the edited one, row by row."""
    keys = []
    for r in rows:
        inputs = run(em, pad([r.ids], 0), inputs=[site]).inputs[site][0].double()
        keys.append(torch.cat([inputs[: r.last], inputs[r.last + 1 :]]))
    found = torch.cat(keys)
    return found.T @ found / len(found)


@pytest.mark.parametrize("kind", ["attention", "mlp"])
def test_own_weighs_what_stands_beside_the_edited_tokens_against_the_corpus(
    kind: SiteKind, editable: Editable
) -> None:
    em, site, ridge = editable("qwen2"), Site(1, kind), 1e-4
    moments = moments_of(em, [site])
    rows = edit_rows(em, FACTS, CONTEXTS)
    more = [row(em, n, f"I met {f.subject} in", f.subject, answer="the city") for n, f in enumerate(FACTS)]
    pool = [*rows, *more]

    @settings(max_examples=25)
    @given(st.floats(0, 1), st.sets(st.integers(0, len(pool) - 1)), st.floats(1e-4, 1e-1))
    def holds(own: float, chosen: set[int], budget: float) -> None:
        around = [pool[n] for n in sorted(chosen)]
        made = Spreader(em, rows, len(FACTS), [1], moments, around=around, own=own, ridge=ridge)
        # no rows of its own: the edit rows
        matrix = (1 - own) * moments[site].matrix.double() + own * beside(em, around or rows, site)
        kept = matrix + ridge * matrix.diagonal().mean() * torch.eye(len(matrix), dtype=torch.float64)
        factor = made.preserved(site).factor
        scale = float(matrix.diagonal().mean())
        torch.testing.assert_close(factor @ factor.T / scale, kept / scale, atol=1e-5, rtol=1e-4)

        alpha = 1.0 if kind == "attention" else 0.0
        found = made.solve(asked(made), {1: alpha}, Budget(budget, budget))
        report, dw, w = found.reports[site], found.factors[site].dense().double(), em.weight(site).double()
        drift = float((dw @ kept @ dw.T).trace() / (w @ matrix @ w.T).trace())
        assert report.drift == pytest.approx(drift, rel=1e-3)
        assert report.drift <= budget * (1 + 1e-6)
        met = report.reached is not None and report.reached > 0.999
        assert report.drift == pytest.approx(budget, rel=1e-3) or met

    holds()


def test_own_at_its_ends_forgets_the_other_side(editable: Editable) -> None:
    em, site = editable(), Site(1, "mlp")
    rows = edit_rows(em, FACTS, CONTEXTS)
    moments = moments_of(em, [site])
    others = {site: Moments(3 * torch.eye(em.d_in(site)), 9)}

    def factor(known: Mapping[Site, Moments], around: Sequence[Row], own: float) -> Tensor:
        spread = Spreader(em, rows, len(FACTS), [1], known, around=around, own=own)
        return spread.preserved(site).factor

    assert torch.equal(factor(moments, rows, 0.0), factor(moments, rows[:1], 0.0))
    assert torch.equal(factor(moments, rows, 1.0), factor(others, rows, 1.0))
    assert not torch.equal(factor(moments, rows, 0.5), factor(others, rows, 0.5))
    assert not torch.equal(factor(moments, rows, 0.5), factor(moments, rows[:1], 0.5))


def test_rows_with_nothing_beside_the_edited_token_leave_the_corpus(editable: Editable) -> None:
    em, site = editable(), Site(1, "mlp")
    moments = moments_of(em, [site])
    alone = [Row(0, (5,), 0, ())]
    made = [
        Spreader(em, edit_rows(em, FACTS, ()), 4, [1], moments, around=alone, own=own).preserved(site).factor
        for own in (0.7, 0.0)
    ]
    torch.testing.assert_close(*made, atol=1e-6, rtol=1e-5)
