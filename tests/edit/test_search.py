"""The search tries budgets, keeps the best judgement, and leaves nothing applied."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from hubedit.edit import search as module
from hubedit.edit.probes import Judgement, Probes, TextState, judge, read_text
from hubedit.edit.rows import edit_rows
from hubedit.edit.search import ATTENTION_BUDGETS, MLP_BUDGETS, first_budget, search
from hubedit.edit.spread import Budget, Solution, Spreader
from hubedit.model.editable import EditableModel
from hubedit.model.hooks import applied
from hubedit.model.tokens import encode
from tests.edit.editing import FACTS, moments_of
from tests.pico import SENTENCES

Editable = Callable[..., EditableModel]
ALPHA = {1: 0.3, 2: 0.3}


@pytest.fixture
def setting(editable: Editable) -> tuple[Spreader, Tensor, Probes, TextState]:
    em = editable("qwen2")
    rows = edit_rows(em, FACTS, ())
    own = Spreader(em, rows, len(FACTS), [1, 2], moments_of(em))
    delta = torch.randn(own.clean.shape, dtype=torch.float64)
    text = tuple(encode(em.tokenizer, s).ids for s in SENTENCES[:4])
    return own, delta, Probes(tuple(rows), (), (), text), read_text(em, text)


def judged(monkeypatch: pytest.MonkeyPatch, score: Callable[[int], float]) -> None:
    """The n-th trial gets `score(n)`, and every budget is a new one."""
    count = iter(range(100))
    monkeypatch.setattr(module, "_spent", lambda *a: False)
    monkeypatch.setattr(module, "judge", lambda *a: Judgement(score(next(count)), None, None, None, ()))


def test_the_best_trial_wins_and_every_trial_is_told(
    setting: tuple[Spreader, Tensor, Probes, TextState], monkeypatch: pytest.MonkeyPatch
) -> None:
    own, delta, probes, clean = setting
    scores = [0.1 + 0.0005 * ((n * 7) % 5) for n in range(20)]
    judged(monkeypatch, scores.__getitem__)
    ticks: list[int] = []
    found = search(own, delta, ALPHA, probes, clean, order="attention-first", tick=lambda: ticks.append(1))
    assert len(found.trials) == len(ticks) >= len(MLP_BUDGETS)
    assert [t.judgement.success for t in found.trials] == scores[: len(ticks)]
    assert found.trial.judgement.score == max(t.judgement.score for t in found.trials)
    again = own.solve(delta, found.trial.alpha, found.trial.budget)
    for site, factor in found.solution.factors.items():
        torch.testing.assert_close(again.factors[site].dense(), factor.dense(), atol=1e-6, rtol=1e-4)


def test_plain_mlp_editing_is_always_among_the_candidates(
    setting: tuple[Spreader, Tensor, Probes, TextState], monkeypatch: pytest.MonkeyPatch
) -> None:
    own, delta, probes, clean = setting
    judged(monkeypatch, lambda n: 0.5)
    found = search(own, delta, ALPHA, probes, clean, order="attention-first")
    without = [t for t in found.trials if max(t.alpha.values()) == 0]
    assert [t.budget.mlp for t in without] == list(MLP_BUDGETS)
    joint = [t for t in found.trials if max(t.alpha.values()) > 0]
    assert [t.budget.attention for t in joint] == list(ATTENTION_BUDGETS)
    assert all(t.alpha == ALPHA for t in joint)
    nothing = search(own, delta, dict.fromkeys((1, 2), 0.0), probes, clean, order="attention-first")
    assert len(nothing.trials) == len(MLP_BUDGETS)


def test_more_attention_is_not_tried_where_some_was_worse(
    setting: tuple[Spreader, Tensor, Probes, TextState], monkeypatch: pytest.MonkeyPatch
) -> None:
    own, delta, probes, clean = setting
    judged(monkeypatch, lambda n: 0.5 - 0.001 * (n == len(MLP_BUDGETS)))
    found = search(own, delta, ALPHA, probes, clean, order="attention-first")
    assert [t.budget.attention for t in found.trials if t.alpha == ALPHA] == [ATTENTION_BUDGETS[0]]


@pytest.mark.parametrize(("joint", "taken"), [(0.46, True), (0.44, False)])
def test_before_polish_attention_only_has_to_come_near(
    setting: tuple[Spreader, Tensor, Probes, TextState],
    monkeypatch: pytest.MonkeyPatch,
    joint: float,
    taken: bool,
) -> None:
    """Polish makes more of twice the sites, so a little worse is good enough."""
    own, delta, probes, clean = setting
    judged(monkeypatch, [0.5, joint].__getitem__)
    first = Budget(0.01, 0.1)
    found = search(own, delta, ALPHA, probes, clean, order="attention-first", first=first)
    assert [t.budget for t in found.trials] == [Budget(0.0, 0.1), first], "nothing larger is tried"
    assert [max(t.alpha.values()) for t in found.trials] == [0, 0.3]
    assert found.trial is found.trials[1 if taken else 0]
    # what polish makes worse comes back as the best trial
    assert taken == (found.best is not None and found.best[1] is found.trials[0])


def test_before_polish_a_given_alpha_is_all_that_is_tried(
    setting: tuple[Spreader, Tensor, Probes, TextState], monkeypatch: pytest.MonkeyPatch
) -> None:
    own, delta, probes, clean = setting
    judged(monkeypatch, lambda n: 0.5)
    first = Budget(0.01, 0.1)
    for alpha, given in ((ALPHA, True), (dict.fromkeys(ALPHA, 0.0), False)):
        found = search(own, delta, alpha, probes, clean, order="attention-first", first=first, given=given)
        assert [t.alpha for t in found.trials] == [alpha]


def test_the_first_budget_follows_the_number_of_facts_and_is_shared_by_the_layers() -> None:
    one, hundred = first_budget(1, {4: 0.3}), first_budget(100, {4: 0.3})
    assert hundred.mlp == pytest.approx(10 * one.mlp)
    assert first_budget(100, {4: 0.3, 5: 0.3}).mlp == pytest.approx(hundred.mlp / 2)
    assert 0 < hundred.attention < hundred.mlp
    assert first_budget(100, {4: 0.3}, weight=4.0).mlp == pytest.approx(2 * hundred.mlp)
    assert first_budget(10**6, {4: 0.3}).mlp <= MLP_BUDGETS[-1], "the most that any edit was tried with"
    # with nothing in the MLP there is nobody to leave the rest to
    assert first_budget(100, {4: 1.0}).attention == hundred.mlp


def test_an_alpha_of_the_users_own_is_not_weighed_against_zero(
    setting: tuple[Spreader, Tensor, Probes, TextState], monkeypatch: pytest.MonkeyPatch
) -> None:
    own, delta, probes, clean = setting
    judged(monkeypatch, lambda n: 0.5 + 0.001 * (n == 2))
    found = search(own, delta, ALPHA, probes, clean, order="attention-first", given=True)
    assert all(t.alpha == ALPHA for t in found.trials)
    first = [t.budget for t in found.trials[: len(MLP_BUDGETS)]]
    assert first == [Budget(ATTENTION_BUDGETS[0], mlp) for mlp in MLP_BUDGETS]
    rest = [t.budget for t in found.trials[len(MLP_BUDGETS) :]]
    # 0.5 is not worse enough than 0.501 to end the search
    assert rest == [Budget(attention, MLP_BUDGETS[2]) for attention in module.GIVEN_BUDGETS]
    assert found.trial.budget == Budget(ATTENTION_BUDGETS[0], MLP_BUDGETS[2])
    assert {site.kind for site in found.solution.factors} == {"attention", "mlp"}


@pytest.mark.parametrize(
    ("scores", "tried", "chosen"),
    [((0.5, 0.6, 0.7, 0.6), 4, 0.1), ((0.5, 0.6, 0.7, 0.8, 0.9), 5, 0.4), ((0.5, 0.49), 2, None)],
)
def test_an_alpha_of_the_users_own_may_have_more_attention(
    setting: tuple[Spreader, Tensor, Probes, TextState],
    monkeypatch: pytest.MonkeyPatch,
    scores: tuple[float, ...],
    tried: int,
    chosen: float | None,
) -> None:
    own, delta, probes, clean = setting
    judged(monkeypatch, [*([0.5] * len(MLP_BUDGETS)), *scores].__getitem__)
    found = search(own, delta, ALPHA, probes, clean, order="attention-first", given=True)
    attentions = tuple(t.budget.attention for t in found.trials[len(MLP_BUDGETS) :])
    assert attentions == module.GIVEN_BUDGETS[:tried]
    assert found.trial.budget.attention == (chosen or ATTENTION_BUDGETS[0])


def test_budgets_beyond_one_that_is_worse_are_not_tried(
    setting: tuple[Spreader, Tensor, Probes, TextState], monkeypatch: pytest.MonkeyPatch
) -> None:
    own, delta, probes, clean = setting
    judged(monkeypatch, [0.5, 0.6, 0.599, 0.59, 0.9].__getitem__)
    found = search(own, delta, dict.fromkeys(ALPHA, 0.0), probes, clean, order="attention-first")
    assert [t.budget.mlp for t in found.trials] == list(MLP_BUDGETS[:4])
    assert found.trial.budget.mlp == MLP_BUDGETS[1]


def test_a_budget_that_changes_nothing_is_the_last(
    setting: tuple[Spreader, Tensor, Probes, TextState], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The smallest lambda stays within it already, so larger ones give the same factors."""
    own, delta, probes, clean = setting
    monkeypatch.setattr(module, "judge", lambda *a: Judgement(0.5, None, None, None, ()))
    monkeypatch.setattr(module, "MLP_BUDGETS", (1e-4, 1e9, 1e10, 1e11))
    found = search(own, delta, dict.fromkeys(ALPHA, 0.0), probes, clean, order="attention-first")
    assert [t.budget.mlp for t in found.trials] == [1e-4, 1e9, 1e10]
    assert found.trials[1].drift == pytest.approx(found.trials[2].drift)


def test_more_attention_that_changes_nothing_is_the_last(
    setting: tuple[Spreader, Tensor, Probes, TextState], monkeypatch: pytest.MonkeyPatch
) -> None:
    own, delta, probes, clean = setting
    monkeypatch.setattr(module, "judge", lambda *a: Judgement(0.5, None, None, None, ()))
    monkeypatch.setattr(module, "MLP_BUDGETS", (1e9,))
    monkeypatch.setattr(module, "GIVEN_BUDGETS", (1e9, 1e10, 1e11))
    found = search(own, delta, ALPHA, probes, clean, order="attention-first", given=True)
    assert [t.budget.attention for t in found.trials] == [ATTENTION_BUDGETS[0], 1e9, 1e10]


def test_an_alpha_of_zero_may_be_given_too(
    setting: tuple[Spreader, Tensor, Probes, TextState], monkeypatch: pytest.MonkeyPatch
) -> None:
    own, delta, probes, clean = setting
    judged(monkeypatch, lambda n: 0.5)
    nothing = dict.fromkeys(ALPHA, 0.0)
    found = search(own, delta, nothing, probes, clean, order="attention-first", given=True)
    assert [t.budget.mlp for t in found.trials] == list(MLP_BUDGETS)
    assert all(t.alpha == nothing for t in found.trials)
    assert {site.kind for site in found.solution.factors} == {"mlp"}


@pytest.mark.parametrize(
    ("family", "passes"), [("llama", 0), ("gemma2", 2), ("gemma3_text", 2), ("olmo2", 2)]
)
def test_behind_a_norm_every_trial_is_corrected(
    family: str, passes: int, editable: Editable, monkeypatch: pytest.MonkeyPatch
) -> None:
    em = editable(family)
    rows = tuple(edit_rows(em, FACTS, ()))
    own = Spreader(em, rows, len(FACTS), [1, 2], moments_of(em))
    delta = 0.1 * own.clean.norm(dim=1, keepdim=True) / 32**0.5 * torch.randn_like(own.clean)
    text = tuple(encode(em.tokenizer, s).ids for s in SENTENCES[:2])
    probes, clean = Probes(rows, (), (), text), read_text(em, text)
    corrected: list[Mapping[int, float]] = []
    real = own.correct

    def counted(solution: Solution, delta: Tensor, alpha: Mapping[int, float]) -> Solution:
        corrected.append(alpha)
        return real(solution, delta, alpha)

    monkeypatch.setattr(own, "correct", counted)
    budgets = [Budget(1.0, 1.0, lam=1e-6), Budget(0.1, 0.1)]
    found = search(own, delta, ALPHA, probes, clean, order="attention-first", budgets=budgets)
    assert corrected == [ALPHA] * passes * len(budgets)

    def missed(solution: Solution) -> float:
        with applied(em, solution.factors):
            reached = own.mean_at_subject(2)["hidden"] - own.clean
        return float((delta - reached).norm() / delta.norm())

    once = own.solve(delta, found.trial.alpha, found.trial.budget)
    assert missed(found.solution) <= (0.5 if passes else 1 + 1e-6) * missed(once)


def test_given_budgets_are_tried_exactly(setting: tuple[Spreader, Tensor, Probes, TextState]) -> None:
    own, delta, probes, clean = setting
    budgets = [Budget(0.01, 0.02), Budget(0.1, 0.2)]
    found = search(own, delta, ALPHA, probes, clean, order="joint", budgets=budgets)
    assert [t.budget for t in found.trials] == budgets
    assert all(t.alpha == ALPHA for t in found.trials)


def test_a_judgement_is_of_the_edited_model(setting: tuple[Spreader, Tensor, Probes, TextState]) -> None:
    own, delta, probes, clean = setting
    found = search(own, delta, ALPHA, probes, clean, order="attention-first", budgets=[Budget(0.5, 0.5)])
    with applied(own.em, found.solution.factors):
        assert judge(own.em, probes, clean, own.count) == found.trial.judgement
    assert judge(own.em, probes, clean, own.count).text in (1.0, None), "nothing stays applied"


def test_an_error_leaves_nothing_applied(
    setting: tuple[Spreader, Tensor, Probes, TextState], monkeypatch: pytest.MonkeyPatch
) -> None:
    own, delta, probes, clean = setting

    def broken(*args: Any) -> Mapping[str, Any]:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "judge", broken)
    with pytest.raises(KeyboardInterrupt):
        search(own, delta, ALPHA, probes, clean, order="attention-first")
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in own.em.model.modules())
