"""Editing in sequence: every batch meets the batches before it, and leaves their facts alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hubedit.cache import Cache
from hubedit.config import EditConfig
from hubedit.edit.baseline import measure
from hubedit.edit.batch import EditBatch
from hubedit.edit.compute import compute
from hubedit.edit.methods.context_templates import contexts_of, published_rows
from hubedit.edit.methods.earlier import kept_keys, save_keys
from hubedit.edit.prompts.same_subject import sharing
from hubedit.edit.result import Clock
from hubedit.edit.solve.keys import at_subject
from hubedit.facts import Fact
from hubedit.facts.together import again
from hubedit.linalg import LowRank
from hubedit.model.editable import EditableModel
from hubedit.model.sites import Site
from hubedit.progress import Progress, Silent
from tests.edit.editing import FACTS
from tests.edit.methods import dense
from tests.edit.methods.dense import edited, memit_keys, moments, near, ridged, settings

Editable = Callable[..., EditableModel]
SITE = Site(1, "mlp")


@pytest.mark.parametrize("method", ["memit", "emmet", "intattn", "alphaedit"])
def test_three_batches_are_the_published_equations(method: str, editable: Editable, tmp_path: Path) -> None:
    """Only AlphaEdit preserves the keys of earlier batches, K_prev, and each batch's as they were with its
    own update in effect: at layer 2 the next batch moves them."""
    every: dict[str, dict[str, Any]] = {
        "memit": {"lam": 20.0},
        "emmet": {"lam": 3.0, "l2": 0.1},
        "intattn": {"lam": 20.0, "alpha": "0.3"},
        "alphaedit": {"null_space": "5%", "l2": 0.5},
    }
    em, config = editable("llama"), settings(method, "1-2", batch_size=1, **every[method])
    edit, facts = edited(em, config, tmp_path, FACTS[:3]), FACTS[:3]
    assert edit.targets is not None and edit.targets.delta.shape[0] == 3
    c = {site: moments(em, config, tmp_path, site) for site in edit.factors}
    growing = dense.changed(em)
    earlier = {site: torch.zeros_like(moment) for site, moment in c.items()}

    def solve(site: Site, k: Tensor, r: Tensor) -> Tensor:
        if method == "alphaedit":
            values, vectors = torch.linalg.eigh(c[site])
            free = vectors[:, values < 0.05 * values[-1]]
            p, eye = free @ free.T, torch.eye(len(c[site]), dtype=torch.float64)
            kept = p @ (k.T @ k + earlier[site]) + config.l2 * eye
            found: Tensor = torch.linalg.solve(kept, p @ k.T @ r)
            return found.T
        kept = ridged(config.lam * c[site])
        if method != "emmet":
            change: Tensor = r.T @ k @ torch.linalg.inv(kept + k.T @ k)
            return change
        inverse = torch.linalg.inv(kept)
        middle = k @ inverse @ k.T + config.l2 * torch.eye(len(k), dtype=torch.float64)
        change = r.T @ torch.linalg.inv(middle) @ k @ inverse
        return change

    for n in range(3):
        rows = published_rows(em, facts[n : n + 1], contexts_of(em, config))[0]
        delta = edit.targets.delta[n : n + 1]
        changes = dense.through_layers(growing, rows, delta, [1, 2], solve, dict(edit.alpha))
        assert set(changes) == set(edit.factors)
        for site, change in changes.items():
            factor = edit.factors[site]
            near(LowRank(factor.B[:, n : n + 1], factor.A[n : n + 1]).dense(), change)
            keys = memit_keys(growing, rows, site, 2)[0]
            earlier[site] = earlier[site] + keys.T @ keys


def test_the_joint_method_keeps_earlier_facts(editable: Editable, tmp_path: Path) -> None:
    """With batches, the second one moves the first one's hidden states less than when it knows nothing of
    them."""
    em = editable("llama")
    config = settings("joint", "1-2", alpha="0.3", lam=0.05)
    first, second = FACTS[:2], FACTS[2:]
    alone = compute(em, first, config, cache=Cache(tmp_path))
    both = compute(em, FACTS, replace(config, batch_size=2), cache=Cache(tmp_path))
    for site, factor in alone.factors.items():
        assert torch.equal(both.factors[site].B[:, : factor.rank], factor.B)
        assert torch.equal(both.factors[site].A[: factor.rank], factor.A)
        assert both.factors[site].rank == len(FACTS)
    rows = published_rows(em, first, ())[0]

    def states(factors: dict[Site, LowRank]) -> Tensor:
        return at_subject(em.with_patch(factors), rows, 2).hidden

    # the same second batch, on the same model, without knowing of the first
    unprotected = compute(em.with_patch(alone.factors), second, config, cache=Cache(tmp_path / "other"))
    blind = {s: f + unprotected.factors[s] for s, f in alone.factors.items()}
    before = states(dict(alone.factors))
    protected = float((states(dict(both.factors)) - before).norm())
    assert protected < 0.5 * float((states(blind) - before).norm())


def test_what_is_preserved_weighs_more_with_more_facts(editable: Editable, tmp_path: Path) -> None:
    """Each fact beyond `lam_facts` adds to the weight, with those of the batches before and of an older
    patch; nothing is added to a published weight."""
    em, cache = editable("llama"), Cache(tmp_path)
    config = settings("joint", "1-2", lam=3.0, lam_facts=2, lam_per_fact=1.0)

    def weight(em: EditableModel, config: EditConfig, **more: Any) -> float:
        edit = compute(em, FACTS[1:], config, cache=cache, **more)
        (found,) = {report.lam for report in edit.reports.values()}
        return found

    new = len(FACTS) - 1
    assert weight(em, config) == weight(em, replace(config, batch_size=2)) == 3.0 + new - 2
    assert weight(em, config, earlier=FACTS[:1]) == 3.0 + new - 1
    assert weight(em, replace(config, lam_facts=new)) == weight(em, replace(config, lam_per_fact=0.0)) == 3.0
    both = compute(em, FACTS[1:], replace(config, lam_facts=0, batch_size=2), cache=cache).factors
    first = compute(em, FACTS[1:3], replace(config, lam=3.0 + 2, lam_per_fact=0.0), cache=cache).factors
    assert all(torch.equal(both[site].A[: factor.rank], factor.A) for site, factor in first.items())
    memit = settings("memit", "1-2", lam=20.0)
    assert weight(em, replace(memit, lam_facts=0)) == 20.0
    # it is the weight of the solve
    one = compute(em, FACTS[1:], config, cache=cache).factors
    other = compute(em, FACTS[1:], replace(config, lam=3.0 + new - 2, lam_per_fact=0.0), cache=cache).factors
    assert all(torch.equal(one[site].dense(), other[site].dense()) for site in one)


def test_many_batches_stay_within_the_width(editable: Editable, tmp_path: Path) -> None:
    em = editable("llama")
    facts = [
        Fact(f"{name} {verb}", name, target)
        for name in ("Rome", "Paris", "Tokyo", "London", "Vienna", "Madrid")
        for verb in ("is in", "lies near", "was built in", "is ruled by", "is called", "has")
        for target in ("Italy",)
    ]
    config = settings("memit", "1", lam=20.0, batch_size=18)
    config = replace(config, targets=replace(config.targets, contexts=0, steps=2))
    edit = edited(em, config, tmp_path, facts)
    assert len(facts) > em.hidden_size
    assert edit.factors[SITE].rank == em.hidden_size
    assert edit.targets is not None and len(edit.targets.delta) == len(facts)


@pytest.mark.parametrize("method", ["rome", "r-rome"])
def test_rome_s_facts_are_a_sequence_whatever_the_batches(
    method: str, editable: Editable, tmp_path: Path
) -> None:
    em = editable("llama")
    one, two = (edited(em, settings(method, "1", batch_size=n), tmp_path) for n in (0, 2))
    assert torch.equal(one.factors[SITE].B, two.factors[SITE].B)


def test_earlier_facts_of_a_subject_are_found_by_its_names() -> None:
    """By the subject's text, by the tokens that lead up to it, and by what two of them share."""
    new = [("Rome", (1, 2)), ("Oslo", (3,)), ("Rome", (7, 2))]
    earlier = [("Paris", (4,)), ("The Rome", (1, 2)), ("Rome", (9, 2)), ("Kyiv", (9, 2)), ("Kyiv", (5,))]
    assert sharing(new, earlier) == {1: 0, 2: 0, 3: 0, 4: 0}
    assert sharing(new, []) == sharing([], earlier) == {}


def test_what_is_edited_again_is_not_kept() -> None:
    old = [Fact("Rome is in", "Rome", "Peru"), Fact("Paris is in", "Paris", "Peru")]
    assert again(old, [Fact("rome is in", "rome", "Chile")]) == {0: 0}
    assert again(old, [Fact("Rome is by", "Rome", "the sea")]) == {}


def tokens_by_batch(em: EditableModel, work: Callable[[Progress], object]) -> list[int]:
    """How many tokens go into the model from one batch's message to the next."""
    counts: list[int] = []

    class Listening(Silent):
        def message(self, text: str) -> None:
            if text.startswith("batch"):
                counts.append(0)

    def count(module: object, args: tuple[Tensor, ...]) -> None:
        if counts:
            counts[-1] += args[0].numel()

    handle = em.embeddings().register_forward_pre_hook(count)
    try:
        work(Listening())
    finally:
        handle.remove()
    return counts


@pytest.mark.parametrize("method", ["joint", "alphaedit"])
def test_a_batch_costs_what_the_first_did(method: str, editable: Editable, tmp_path: Path) -> None:
    em = editable("llama")
    names = ("xq", "zj", "qz", "jx", "vk", "kx")  # of at most two tokens each, so that batches are alike
    facts = [Fact(f"{name} is in", name, " Peru") for name in names]
    more: dict[str, Any] = {"alphaedit": {"null_space": "5%"}}
    config = settings(method, "1-2", batch_size=1, **more.get(method, {}))
    targets = replace(config.targets, steps=2, loss=0.0, rounds=1, contexts=1)
    cache = Cache(tmp_path)
    counts = tokens_by_batch(
        em, lambda told: compute(em, facts, replace(config, targets=targets), cache=cache, progress=told)
    )
    # the last count holds the check of the whole, too
    assert len(counts) == len(names) and max(counts[1:-1]) <= counts[0], counts


def test_keys_of_older_steps_come_from_the_cache(editable: Editable, tmp_path: Path) -> None:
    """What a step has left there is preserved, and no prompt of an older fact goes into the model again."""
    em, cache = editable("llama"), Cache(tmp_path)
    config = settings("joint", "1-2", lam=0.05)
    kept, new = FACTS[:2], FACTS[2:3]
    first = compute(em, kept, config, cache=cache)
    save_keys(cache, "one", "joint", [f.prompt for f in kept], first.keys)
    site = Site(2, "mlp")
    baseline = measure(em, new, config, cache, Silent(), Clock())
    batch = EditBatch(em, new, config, baseline, cache, Silent(), Clock())
    assert torch.equal(kept_keys(batch, kept, ["one", "one"])[site], first.keys[site])
    # without the patch in effect the keys are others now, as a step that left none shows
    assert not torch.equal(kept_keys(batch, kept, ["two", "two"])[site], first.keys[site])
    assert torch.equal(kept_keys(batch, kept, ["two", "two"])[site], kept_keys(batch, kept, [])[site])
    mixed = kept_keys(batch, kept, ["one", "two"])[site]
    assert torch.equal(mixed[0], first.keys[site][0]) and not torch.equal(mixed[1], first.keys[site][1])
