"""The joint edit against its own equations, written out densely."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import get_args

import pytest
import torch

from hubedit.cache import Cache
from hubedit.config import EditConfig, PromptConfig, StatsConfig, TargetConfig
from hubedit.edit.compute import compute
from hubedit.edit.methods.joint import rounds_by_subject
from hubedit.edit.prompts.contexts import key_rows, preserved_rows, target_rows
from hubedit.edit.result import Edit
from hubedit.edit.solve.chat_template import MESSAGES, template_keys
from hubedit.edit.solve.keys import at_subject
from hubedit.edit.solve.residual import split
from hubedit.edit.statistics.second_moments import second_moments
from hubedit.edit.targets.optimise import optimise
from hubedit.evaluate.forced import forced
from hubedit.facts import Fact, Probe
from hubedit.model.chat import chat_of
from hubedit.model.editable import EditableModel
from hubedit.model.hooks import run
from hubedit.model.sites import Site, SiteKind
from hubedit.model.tokens import locate, pad, token_ids
from hubedit.name_sentences import sentences
from hubedit.progress import Silent
from tests.edit.editing import FACTS
from tests.model.test_chat import LINES, tokenizer
from tests.pico import SENTENCES

Editable = Callable[..., EditableModel]


@pytest.fixture
def config(tmp_path: Path) -> EditConfig:
    text = tmp_path / "text.txt"
    text.write_text("\n".join(SENTENCES))
    return EditConfig(
        layers="0-1",
        alpha="0.3",
        lam=0.5,
        stats=StatsConfig(str(text), 200),
        targets=TargetConfig(steps=4, clamp=1.0),
    )


def keys_at(em: EditableModel, edit: Edit, before: list[Site], site: Site) -> tuple[torch.Tensor, list[int]]:
    """The inputs of a site at every form's subject, with the sites before in effect, one form at a time."""
    found, owner = [], []
    patched = em.with_patch({s: edit.factors[s] for s in before})
    for r in key_rows(patched, FACTS, PromptConfig()):
        batch = pad([r.ids], patched.pad_id)
        found.append(run(patched, batch, inputs=[site]).inputs[site][0, r.last].double())
        owner.append(r.fact)
    return torch.stack(found), owner


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2"])
def test_every_site_solves_the_dense_normal_equations(
    family: str, editable: Editable, config: EditConfig, tmp_path: Path
) -> None:
    em = editable(family)
    cache = Cache(tmp_path)
    edit = compute(em, FACTS, config, cache=cache)
    order = [Site(layer, kind) for layer in (0, 1) for kind in split(0.3)]
    assert sorted(order) == list(edit.factors)
    moments = second_moments(em, order, config.stats, cache, Silent())
    for number, site in enumerate(order):
        keys, owner = keys_at(em, edit, order[:number], site)
        weight = torch.tensor([1 / owner.count(fact) for fact in owner], dtype=torch.float64)
        total = (keys.T * weight) @ keys + config.lam * moments[site].matrix.double()
        delta = edit.factors[site].B.T.double()
        dense = torch.linalg.solve(total, (keys.T * weight) @ delta[owner]).T
        torch.testing.assert_close(edit.factors[site].dense().double(), dense, rtol=2e-3, atol=2e-5)


@pytest.mark.parametrize(
    ("family", "alpha", "kinds"),
    [
        ("qwen2", "0", {"mlp"}),
        ("qwen2", "1", {"attention"}),
        ("qwen2", "0.3", {"attention", "mlp"}),
        ("gemma2", "0", {"mlp"}),
    ],
)
def test_alpha_is_the_share_of_the_clamp(
    family: str, alpha: str, kinds: set[str], editable: Editable, config: EditConfig, tmp_path: Path
) -> None:
    """Behind a norm (Gemma) the whole is shorter."""
    em = editable(family)
    targets = replace(config.targets, clamp=0.05, step=0.05, rounds=1, steps=8)
    tight = replace(config, alpha=alpha, layers="1", targets=targets)
    edit = compute(em, FACTS, tight, cache=Cache(tmp_path))
    assert {site.kind for site in edit.factors} == kinds
    rows = [locate(em.tokenizer, f.prompt, f.subject) for f in FACTS]
    for site, factor in edit.factors.items():
        written = run(em, pad([r.ids for r in rows], em.pad_id), outputs=[site]).outputs[site]
        sizes = torch.stack([written[n, r.last].norm() for n, r in enumerate(rows)])
        share = float(alpha) if site.kind == "attention" else 1 - float(alpha)
        share *= 0.5 if family == "gemma2" else 1
        ratio = factor.B.norm(dim=0) / sizes
        # the bound is relative to the mean over all forms, which is near that of the bare prompt
        assert (ratio < 0.05 * share * 1.3).all() and (ratio > 0.05 * share * 0.6).all()


@pytest.mark.parametrize("kind", get_args(SiteKind))
@pytest.mark.parametrize("layer", [0, 1])
def test_a_target_is_what_the_site_must_write(kind: SiteKind, layer: int, editable: Editable) -> None:
    """Delta written by hand at the subject of the whole prompt gives the likelihood that the descent has."""
    em = editable("gemma3_text")
    site, fact = Site(layer, kind), FACTS[1]
    rows = target_rows(em, [fact], PromptConfig(), 1)[:1]
    config = TargetConfig(steps=5, clamp=2.0, loss=0.0, kl=0.0, decay=0.0, entries=0)
    found = optimise(em, rows, 1, layer, config, site=site)
    place = locate(em.tokenizer, fact.prompt, fact.subject).last

    def write(module: torch.nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        moved = output.clone()
        moved[:, place] += found.delta[0]
        return moved

    plain = next(iter(forced(em, [(fact.prompt, fact.target)]).values()))
    handle = em.site(site).register_forward_hook(write)
    try:
        edited = next(iter(forced(em, [(fact.prompt, fact.target)]).values()))
    finally:
        handle.remove()
    assert -edited.logp == pytest.approx(float(found.nll[0]), rel=1e-3, abs=1e-3)
    assert edited.logp > plain.logp


def test_forms_hold_the_prompt_and_the_subject(editable: Editable) -> None:
    em = editable("qwen2")
    rows = target_rows(em, FACTS, PromptConfig(), 2)
    assert [r.fact for r in rows] == [n for n in range(len(FACTS)) for _ in range(3)]
    assert all(r.labels == rows[3 * r.fact].labels[: len(r.labels)] or r.labels for r in rows)
    keys = key_rows(em, FACTS, PromptConfig())
    # "France" stands behind other words in every form, and each form gives it another key
    assert sum(r.fact == 0 for r in keys) == len(PromptConfig().openings) + 1
    assert all(r.preserve for r in preserved_rows(em, FACTS))


def test_facts_of_one_subject_share_a_target(editable: Editable, config: EditConfig, tmp_path: Path) -> None:
    em = editable("qwen2")
    facts = [
        Fact("Marie Curie was born in", "Marie Curie", "Rome"),
        Fact("Marie Curie works for", "Marie Curie", "Google"),
    ]
    edit = compute(em, facts, config, cache=Cache(tmp_path))
    for factor in edit.factors.values():
        assert factor.rank == 2 and torch.equal(factor.B[:, 0], factor.B[:, 1])


def test_an_earlier_fact_of_the_subject_is_among_its_targets(
    editable: Editable, config: EditConfig, tmp_path: Path
) -> None:
    """Its own answer stays likelier than where it is not known to the new edit."""
    em = editable("qwen2")
    old = Fact("Marie Curie was born in", "Marie Curie", "Rome")
    new = [Fact("Marie Curie works for", "Marie Curie", "Google")]

    def likelihood(kept: list[Fact]) -> float:
        edit = compute(em, new, config, earlier=kept, cache=Cache(tmp_path))
        patched = em.with_patch(edit.factors)
        return next(iter(forced(patched, [(old.prompt, old.target)]).values())).logp

    assert likelihood([old]) > likelihood([])


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_few_entries_of_the_vocabulary_find_nearly_the_same_target(family: str, editable: Editable) -> None:
    """One pass has no preserved row, and the vocabulary that is left out is counted as one entry."""
    em = editable(family)
    config = TargetConfig(steps=6, clamp=1.0, loss=0.0, entries=0)
    edit = target_rows(em, FACTS, PromptConfig(), 1)
    for rows in (edit, [*edit, *preserved_rows(em, FACTS)]):
        whole = optimise(em, rows, len(FACTS), 1, config, site=Site(1, "mlp"))
        few = optimise(em, rows, len(FACTS), 1, replace(config, entries=8), site=Site(1, "mlp"), tokens=64)
        torch.testing.assert_close(few.nll, whole.nll, rtol=0.02, atol=0.02)
        assert torch.cosine_similarity(few.delta, whole.delta).min() > 0.98


def test_rounds_add_to_what_is_missing(editable: Editable, config: EditConfig, tmp_path: Path) -> None:
    """Each round moves a fact that is not there yet by at most the clamp, and one that is there no more."""
    em = editable("qwen2")

    def edited(rounds: int, loss: float) -> Edit:
        targets = replace(config.targets, clamp=0.1, step=0.1, steps=2, rounds=rounds, loss=loss)
        return compute(em, FACTS, replace(config, alpha="0", targets=targets), cache=Cache(tmp_path))

    one, three, easy = edited(1, 0.0), edited(3, 0.0), edited(3, 100.0)
    assert one.targets is not None and three.targets is not None
    size = {n: e.factors[Site(0, "mlp")].B.norm(dim=0) for n, e in (("one", one), ("three", three))}
    assert (size["three"] > 1.5 * size["one"]).all() and (size["three"] < 3.01 * size["one"]).all()
    assert (three.targets.loss < one.targets.loss).all()
    assert list(easy.factors) == [Site(0, "mlp")] and easy.factors[Site(0, "mlp")].norm() == 0


def test_messages_in_the_chat_template_are_preserved(
    editable: Editable, config: EditConfig, tmp_path: Path
) -> None:
    """With their weight the update is that of the dense equations, with the sites before in effect, and moves
    those tokens less. Without a template the weight is nothing."""
    plain = editable("llama", "metaspace_bos")
    made = tokenizer("metaspace first", True, "right", True, LINES)
    em = replace(plain, tokenizer=made, chat=chat_of(made))
    below, site, cache = Site(0, "mlp"), Site(1, "mlp"), Cache(tmp_path)
    config = replace(config, alpha="0", lam_facts=0, targets=replace(config.targets, rounds=1))
    alone, kept = (compute(em, FACTS, replace(config, chat_template=w), cache=cache) for w in (0.0, 4.0))
    patched = em.with_patch({below: kept.factors[below]})
    assert {report.lam for report in kept.reports.values()} == {config.lam}  # however many facts there are

    # every message by itself, every token once
    moment = torch.zeros(em.d_in(site), em.d_in(site), dtype=torch.float64)
    count = 0
    for text in islice(sentences(), MESSAGES):
        assert em.chat is not None
        batch = pad(token_ids(em.tokenizer, [em.chat.message(text)]), em.pad_id)
        own = run(patched, batch, inputs=[site]).inputs[site][0].double()
        moment += own.T @ own
        count += len(own)
    keys = template_keys(patched, site)
    torch.testing.assert_close(keys.T @ keys, moment / count, rtol=1e-4, atol=1e-6)
    moved = [edit.factors[site].apply(keys.float()).norm() for edit in (alone, kept)]
    assert moved[1] < 0.8 * moved[0]

    rows = key_rows(em, FACTS, PromptConfig())
    facts = at_subject(patched, rows, 1, [site]).inputs[site]
    weight = torch.tensor([1 / sum(o.fact == r.fact for o in rows) for r in rows], dtype=torch.float64)
    ordinary = second_moments(em, [site], config.stats, cache, Silent())[site].matrix.double()
    total = (facts.T * weight) @ facts + config.lam * (ordinary + 4 * moment / count)
    delta = kept.factors[site].B.T.double()[[r.fact for r in rows]]
    dense = torch.linalg.solve(total, (facts.T * weight) @ delta).T
    torch.testing.assert_close(kept.factors[site].dense().double(), dense, rtol=2e-3, atol=2e-5)

    same = [compute(plain, FACTS, replace(config, chat_template=w), cache=cache).factors for w in (0.0, 4.0)]
    assert all(same[0][s].digest() == same[1][s].digest() for s in same[0])


def test_a_long_target_takes_more_rounds(editable: Editable, config: EditConfig, tmp_path: Path) -> None:
    """One fact of a batch goes round as often as its tokens ask for, the other one as before."""
    em = editable("qwen2")
    short, other = FACTS[:2]
    long = replace(other, target=f"{other.target} and {short.target} and {other.target}")
    rows = target_rows(em, [short, long], config.prompts, 2)
    tokens = [max(len(r.labels) for r in rows if r.fact == fact) for fact in (0, 1)]
    assert tokens[1] > tokens[0]
    targets = replace(
        config.targets, clamp=0.1, step=0.1, steps=2, rounds=1, loss=0.0, tokens_per_rounds=tokens[0]
    )
    parts = min(4, -(-tokens[1] // tokens[0]))
    assert rounds_by_subject(em, [short, long], [0, 1], targets) == [1, parts]
    assert rounds_by_subject(em, [short, long], [0, 0], targets) == [parts]

    def size(settings: TargetConfig) -> torch.Tensor:
        own = replace(config, alpha="0", layers="0", targets=settings)
        edit = compute(em, [short, long], own, cache=Cache(tmp_path))
        norms: torch.Tensor = edit.factors[Site(0, "mlp")].B.norm(dim=0)
        return norms

    before, after = size(replace(targets, tokens_per_rounds=1000)), size(targets)
    torch.testing.assert_close(after[0], before[0])
    assert after[1] > 1.5 * before[1]


def test_probes_do_not_reach_the_edit(editable: Editable, config: EditConfig, tmp_path: Path) -> None:
    """Rephrasings, locality and portability prompts are for evaluation alone: with and without them the
    update is the same to the last bit, and none of them is among the rows."""
    em = editable("qwen2")
    probed = [
        replace(
            fact,
            rephrase=(f"People say of {fact.subject} that it is",),
            locality=(Probe(f"{fact.subject} has a", ("river",)),),
            portability=(Probe(f"The home of {fact.subject} lies in", (fact.target,)),),
        )
        for fact in FACTS
    ]
    cache = Cache(tmp_path)
    plain, with_probes = compute(em, FACTS, config, cache=cache), compute(em, probed, config, cache=cache)
    assert plain.factors.keys() == with_probes.factors.keys()
    for site, factor in plain.factors.items():
        assert factor.digest() == with_probes.factors[site].digest()
    rows = [*target_rows(em, probed, config.prompts, 5), *key_rows(em, probed, config.prompts)]
    texts = [em.tokenizer.decode(list(r.ids)) for r in [*rows, *preserved_rows(em, probed)]]
    for fact in probed:
        for prompt in (*fact.rephrase, *(p.prompt for p in (*fact.locality, *fact.portability))):
            assert not any(prompt in text for text in texts)
