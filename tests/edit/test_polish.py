"""Polishing: what was asked for comes closer, what must stay stays, and the drift does not grow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from hubedit.cache import Cache
from hubedit.config import EditConfig, StatsConfig
from hubedit.edit import polish as module
from hubedit.edit.asked import Asked, prepare
from hubedit.edit.compute import compute
from hubedit.edit.polish import polish, weighted
from hubedit.edit.result import Clock
from hubedit.edit.rows import Rows
from hubedit.edit.search import Found, Trial, search
from hubedit.edit.spread import Budget, Solution, Spreader
from hubedit.edit.stages import Job, cached_targets, measure
from hubedit.linalg import LowRank
from hubedit.model.editable import EditableModel
from hubedit.model.hooks import applied
from hubedit.progress import Silent
from tests.edit.editing import FACTS

Editable = Callable[..., EditableModel]
CONFIG = EditConfig(layers="0-1", alpha="0.3", stats=StatsConfig(tokens=600), polish=6, repair=0)


def solved(em: EditableModel, config: EditConfig = CONFIG) -> tuple[Spreader, Solution, Asked]:
    clock = Clock()
    ground = measure(em, FACTS, config, Cache(None), Silent(), clock)
    asked = prepare(em, FACTS, config, ground.corpus, ground.text)
    job = Job(em, FACTS, config, ground, Cache(None), Silent(), clock)
    targets = cached_targets(job, asked.all_rows, len(FACTS), ground.layers[-1])
    spreader = Spreader(em, asked.rows, len(FACTS), ground.layers, ground.moments, around=asked.rows)
    return spreader, spreader.solve(targets.delta, ground.alpha, Budget(0.02, 0.05)), asked


def objective(em: EditableModel, solution: Solution, asked: Asked) -> float:
    """The weighted objective, written out: every group's mean by itself."""
    total = 0.0
    for rows, weight in weighted(asked):
        for r in rows:
            tensors = Rows.of(em, [r])
            with torch.no_grad():
                clean = module._log_probabilities(em, tensors)
                with applied(em, {s: f.to(em.device) for s, f in solution.factors.items()}):
                    now = module._log_probabilities(em, tensors)
            kl = (clean.exp() * (clean - now)).sum(-1)
            nll = -now.gather(1, tensors.label[:, None])[:, 0]
            total += weight * float((kl if r.preserve else nll).mean()) / len(rows)
    return total


def test_prompts_after_other_sentences_are_held_to_the_answer_too(editable: Editable) -> None:
    _, _, asked = solved(editable("qwen2"))
    (bare, change), *rest = weighted(asked)
    ((after, weight),) = (group for group in rest if group[0][0] in asked.rows)
    assert len(bare) == len(FACTS)
    assert weight == module.REWORDED * change
    assert sorted(r.fact for r in after) == sorted(module.IN_CONTEXT * list(range(len(FACTS))))
    assert all(len(r.ids) > len(bare[r.fact].ids) for r in after)
    # not the same sentences for every fact: together they have all
    each = {n: [r for r in asked.rows if r.fact == n and r not in bare] for n in range(len(FACTS))}
    assert {each[r.fact].index(r) for r in after} == set(range(CONFIG.targets.contexts))


@pytest.mark.parametrize("contexts", [0, 1])
def test_few_sentences_are_all_used(editable: Editable, contexts: int) -> None:
    _, _, asked = solved(editable("qwen2"))
    bare = {r.fact: r for r in weighted(asked)[0][0]}
    rows = [r for n in bare for r in [q for q in asked.rows if q.fact == n][: 1 + contexts]]
    assert len(module._after_sentences(rows, bare)) == contexts * len(FACTS)


@pytest.mark.parametrize("family", ["qwen2", "gpt2", "gemma2"])
def test_the_objective_falls_and_no_drift_grows(editable: Editable, family: str) -> None:
    em = editable(family)
    spreader, before, asked = solved(em)
    weights = em.weights_hash()
    after = polish(em, spreader, before, asked, 6, Silent())
    assert objective(em, after, asked) < objective(em, before, asked)
    for site, factor in after.factors.items():
        assert torch.equal(factor.A, before.factors[site].A)
        assert factor.rank == before.factors[site].rank
        assert after.reports[site].drift <= before.reports[site].drift * 1.001
    assert em.weights_hash() == weights
    assert all(p.grad is None for p in em.model.parameters())


def test_memory_and_parts_change_nothing_but_rounding(
    editable: Editable, monkeypatch: pytest.MonkeyPatch
) -> None:
    em = editable()
    spreader, before, asked = solved(em)
    whole = polish(em, spreader, before, asked, 2, Silent())
    monkeypatch.setattr(module, "TOKENS", 64)
    monkeypatch.setattr(module, "KEPT", 0)
    parts = polish(em, spreader, before, asked, 2, Silent())
    for site, factor in whole.factors.items():
        torch.testing.assert_close(parts.factors[site].B, factor.B, rtol=1e-3, atol=1e-5)


def test_a_large_batch_is_taken_in_parts(editable: Editable, monkeypatch: pytest.MonkeyPatch) -> None:
    em = editable()
    _, _, asked = solved(em)
    groups = weighted(asked)
    monkeypatch.setattr(module, "STEP_TOKENS", sum(len(r.ids) for rows, _ in groups for r in rows) // 3)
    one, other = module._part(groups, 0, {}), module._part(groups, 1, {})
    assert one == module._part(groups, 0, {}) and one != other
    assert 0 < len(one) < sum(len(rows) for rows, _ in groups)


def test_rows_that_are_met_take_turns(editable: Editable, monkeypatch: pytest.MonkeyPatch) -> None:
    em = editable()
    _, _, asked = solved(em)
    groups = weighted(asked)
    rows = [r for members, _ in groups for r in members]
    losses = {id(r): 1e-6 for r in rows}
    heavy = rows[:: len(rows) // 3]
    share = {id(r): weight / len(members) for members, weight in groups for r in members}
    losses |= {id(r): 1 / share[id(r)] for r in heavy}
    seen: set[int] = set()
    for step in range(module.TURNS):
        part = module._part(groups, step, losses)
        assert len(part) < len(rows) and {id(r) for r in heavy} <= {id(r) for r, _ in part}
        seen |= {id(r) for r, _ in part}
    assert seen == {id(r) for r in rows}, "nobody is forgotten"
    assert len(module._part(groups, 0, {})) == len(rows), "what was never seen is looked at"


@pytest.mark.parametrize("polish", [0, 6])
def test_none_wanted_none_done_and_worse_is_not_kept(
    editable: Editable, monkeypatch: pytest.MonkeyPatch, polish: int
) -> None:
    em = editable()
    searched: list[Found] = []
    first: list[bool] = []
    polished: list[Solution] = []

    def noted(*arguments: Any, **more: Any) -> Found:
        first.append(more["first"] is not None)
        searched.append(search(*arguments, **more))
        return searched[-1]

    def ruined(em: EditableModel, spreader: Spreader, solution: Solution, *rest: Any) -> Solution:
        polished.append(solution)
        return _ruined(solution)

    monkeypatch.setattr("hubedit.edit.attempts.search", noted)
    monkeypatch.setattr("hubedit.edit.attempts.polish", ruined)
    kept = compute(em, FACTS, replace(CONFIG, polish=polish), cache=Cache(None))
    assert bool(polished) == (polish > 0)
    # without polish the budgets are searched, as a first one alone is next to nothing
    assert first == ([True, False] if polish else [False])
    pairs = [f.best or (f.solution, f.trial) for f in searched]
    best = max(pairs, key=lambda pair: pair[1].judgement.score)
    for site, factor in best[0].factors.items():
        assert torch.equal(kept.factors[site].B, factor.B)


def test_a_batch_of_which_a_step_sees_little_and_one_with_short_steps_take_more(
    editable: Editable, monkeypatch: pytest.MonkeyPatch
) -> None:
    em = editable()
    _, _, asked = solved(em)
    tokens = sum(len(r.ids) for rows, _ in weighted(asked) for r in rows)
    assert module.steps_for(asked, 6) == 12, "all prompts of few facts are in every step, which is short"
    monkeypatch.setattr(module, "STEP_TOKENS", tokens * 1.5)
    assert module.steps_for(asked, 6) == 9
    monkeypatch.setattr(module, "STEP_TOKENS", tokens)
    assert module.steps_for(asked, 6) == 6
    monkeypatch.setattr(module, "STEP_TOKENS", tokens / module.STEPS_WORTH / 2.5)
    assert [module.steps_for(asked, n) for n in (6, 1)] == [15, 3]
    taken: list[int] = []

    def counted(em: EditableModel, spreader: Spreader, solution: Solution, *rest: Any) -> Solution:
        taken.append(rest[1])
        return solution

    monkeypatch.setattr("hubedit.edit.attempts.polish", counted)
    monkeypatch.setattr("hubedit.edit.unreached.UNREACHED", float("inf"))
    compute(em, FACTS, CONFIG, cache=Cache(None))
    assert taken and min(taken) >= 15


def test_where_polish_fails_the_best_trial_comes_back(
    editable: Editable, monkeypatch: pytest.MonkeyPatch
) -> None:
    em = editable()
    best: list[tuple[Solution, Trial]] = []

    def near(*arguments: Any, **more: Any) -> Found:
        found = search(*arguments, **more)
        best.append(found.best or (found.solution, found.trial))
        return Found(_ruined(found.solution), found.trial, found.trials, best[-1])

    monkeypatch.setattr("hubedit.edit.attempts.search", near)
    monkeypatch.setattr("hubedit.edit.attempts.polish", lambda em, spreader, solution, *rest: solution)
    kept = compute(em, FACTS, replace(CONFIG, repair=0), cache=Cache(None))
    assert kept.found is not None and kept.found.best is None
    for site, factor in max(best, key=lambda pair: pair[1].judgement.score)[0].factors.items():
        assert torch.equal(kept.factors[site].B, factor.B)


def _ruined(solution: Solution) -> Solution:
    factors = {s: LowRank(f.B * -50, f.A) for s, f in solution.factors.items()}
    return Solution(factors, solution.reports)
