"""While facts fail, polish goes on with more to spend, as long as that brings more and does no harm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from hubedit.cache import Cache
from hubedit.edit import attempts as module
from hubedit.edit.compute import compute
from hubedit.edit.polish import polish as real_polish
from hubedit.edit.probes import Judgement
from hubedit.edit.rows import Row
from hubedit.edit.search import first_budget
from hubedit.edit.spread import Solution
from hubedit.model.editable import EditableModel
from tests.edit.editing import FACTS
from tests.edit.test_polish import CONFIG

Editable = Callable[..., EditableModel]
ALL = len(FACTS)


def rounds(
    monkeypatch: pytest.MonkeyPatch, found: Sequence[tuple[int, float, float]]
) -> tuple[list[float], list[Solution]]:
    """Real rounds, judged (facts there, success, others) = `found[n]`; what each might spend, and made."""
    spent: list[float] = []
    made: list[Solution] = []

    def polish(*arguments: Any) -> Solution:
        if made:
            assert arguments[2] is made[-1], "a round goes on where the one before ended"
        spent.append(arguments[-1])
        made.append(real_polish(*arguments))
        return made[-1]

    def judged(*arguments: Any) -> Judgement:
        _, success, others = found[len(made) - 1]
        return Judgement(success, None, others, None, ())

    monkeypatch.setattr(module, "polish", polish)
    monkeypatch.setattr(module, "judge", judged)
    monkeypatch.setattr(
        module, "hits", lambda em, rows: [n < found[len(made) - 1][0] for n in range(len(rows))]
    )
    return spent, made


@pytest.mark.parametrize(
    ("found", "count", "taken"),
    [
        ([(ALL, 0.95, 0.9)], 1, 0),
        ([(ALL - 1, 0.95, 0.9), (ALL, 0.95, 0.89)], 2, 1),  # a little harm for one more fact
        ([(ALL - 1, 0.95, 0.9), (ALL, 0.95, 0.5)], 2, 0),
        ([(ALL - 1, 0.95, 0.9), (ALL - 2, 1.0, 1.0)], 2, 0),
        ([(ALL - 1, 0.95, 0.9), (ALL - 1, 0.95, 0.9)], 2, 0),  # what cannot be reached ends it
        ([(ALL, 0.5, 0.9), (ALL, 0.95, 0.9)], 2, 1),  # its own prompts are not all that a fact asks for
        ([(0, 0.1, 0.9), (1, 0.2, 0.9), (2, 0.3, 0.9), (2, 0.4, 0.9)], 4, 3),
        # a score of 0 says nothing against more facts
        ([(0, 0.1, 0.0), (1, 0.2, 0.0), (1, 0.3, 0.9), (1, 0.3, 0.9)], 4, 2),
    ],
)
def test_while_facts_fail_polish_goes_on_with_twice_the_drift(
    editable: Editable,
    monkeypatch: pytest.MonkeyPatch,
    found: Sequence[tuple[int, float, float]],
    count: int,
    taken: int,
) -> None:
    spent, made = rounds(monkeypatch, found)
    edit = compute(editable(), FACTS, replace(CONFIG, collapse="tell"), cache=Cache(None))
    assert spent == [1.0, 2.0, 2.0, 2.0][:count]
    for site, factor in edit.factors.items():
        assert torch.equal(factor.B, made[taken].factors[site].B)
    assert edit.found is not None
    # all was begun with one small budget, and the record says what was spent
    first = first_budget(ALL, edit.alpha).mlp
    assert {t.budget.mlp for t in edit.found.trials} == {first}
    assert edit.found.trial.budget.mlp == first * 2**taken


def test_no_round_spends_more_than_a_site_can_bear(
    editable: Editable, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = first_budget(ALL, dict.fromkeys((0, 1), 0.3)).mlp
    monkeypatch.setattr(module, "LARGEST", 3 * first)
    spent, _ = rounds(monkeypatch, [(0, 0.1, 0.9), (1, 0.2, 0.9), (2, 0.3, 0.9)])
    compute(editable(), FACTS, replace(CONFIG, collapse="tell"), cache=Cache(None))
    assert spent == [1.0, 2.0]


def test_a_norm_behind_the_sites_may_leave_no_round(
    editable: Editable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There the search itself goes beyond the first budget."""
    em = editable("gemma2")
    spent, made = rounds(monkeypatch, [(0, 0.1, 0.9), (1, 0.2, 0.9), (1, 0.2, 0.9)])
    job = replace(CONFIG, collapse="tell")
    compute(em, FACTS, job, cache=Cache(None))
    drift = max(report.drift for report in made[0].reports.values())
    assert spent[:2] == [1.0, 2.0] and drift > first_budget(ALL, dict.fromkeys((0, 1), 0.3)).mlp
    spent.clear()
    made.clear()
    monkeypatch.setattr(module, "LARGEST", 1.9 * drift)
    compute(em, FACTS, job, cache=Cache(None))
    assert spent == [1.0]


def test_a_new_name_that_runs_on_is_not_there(editable: Editable, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[int, int]] = []
    _, made = rounds(monkeypatch, [(ALL, 0.95, 0.9)])

    def hits(em: EditableModel, rows: list[Row]) -> list[bool]:
        asked.append({r.fact: len(r.labels) for r in rows})
        return [True] * len(rows)

    monkeypatch.setattr(module, "hits", hits)
    monkeypatch.setattr(module, "endings", lambda *arguments: dict.fromkeys(range(ALL), 5))
    for hard in (frozenset[int](), frozenset({1})):
        monkeypatch.setattr("hubedit.edit.compute.unreached", lambda *arguments, hard=hard: hard)
        compute(editable(), FACTS, replace(CONFIG, collapse="tell"), cache=Cache(None))
        made.clear()
    plain, named = asked
    assert [named[n] - plain[n] for n in range(ALL)] == [int(n == 1) for n in range(ALL)]


@pytest.mark.parametrize("settings", [{"search": False}, {"lam": 10.0}])
def test_rounds_of_an_edit_with_a_budget_of_the_users_keep_it(
    editable: Editable, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    spent, _ = rounds(monkeypatch, [(0, 0.1, 0.9), (1, 0.2, 0.9), (1, 0.2, 0.9)])
    compute(editable(), FACTS, replace(CONFIG, collapse="tell", **settings), cache=Cache(None))
    assert spent == [1.0] * 3
