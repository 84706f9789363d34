"""Seeing into a forward pass and changing it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from hubedit.linalg import LowRank
from hubedit.model.editable import EditableModel
from hubedit.model.hooks import forward_on, new_cache, replaced, run
from hubedit.model.resume import resume
from hubedit.model.sites import Site
from hubedit.model.tokens import Batch, encode, pad
from tests.pico import FAMILIES, LAYERS

Editable = Callable[..., EditableModel]
TEXTS = ["The capital of France is", "Marie Curie was born in Warsaw and worked in the city of", "Rome"]


def batch_of(em: EditableModel, texts: list[str] = TEXTS) -> Batch:
    return pad([encode(em.tokenizer, text).ids for text in texts], em.pad_id)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cache_goes_on_where_it_ends_and_no_library_complains(editable: Editable, family: str) -> None:
    em = editable(family)
    ids = torch.tensor([encode(em.tokenizer, TEXTS[0]).ids])
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("error")
        cache = new_cache(em)
        steps = [forward_on(em, cache, input_ids=ids[:, i : i + 1]).logits for i in range(ids.shape[1])]
        whole = logits_of(em, batch_of(em, TEXTS[:1]))
    torch.testing.assert_close(torch.cat(steps, 1), whole, rtol=1e-4, atol=1e-4)


def random_factors(em: EditableModel, rank: int = 2, scale: float = 0.1) -> dict[Site, LowRank]:
    return {
        site: LowRank(scale * torch.randn(em.hidden_size, rank), torch.randn(rank, em.d_in(site)))
        for site in em.sites()
    }


@contextmanager
def dense(em: EditableModel, factors: dict[Site, LowRank]) -> Iterator[None]:
    """The same change made in the weights themselves."""
    saved = {site: em.weight(site).clone() for site in factors}
    for site, factor in factors.items():
        em.weight(site).add_(factor.dense())
    try:
        yield
    finally:
        for site, weight in saved.items():
            em.weight(site).copy_(weight)


def logits_of(em: EditableModel, batch: Batch) -> Tensor:
    logits = run(em, batch, logits=True).logits
    assert logits is not None
    return logits


def count_hooks(em: EditableModel) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in em.model.modules())


def real(batch: Batch) -> Tensor:
    return batch.mask.bool()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_patched_model_equals_changed_weights(family: str, editable: Editable) -> None:
    em = editable(family)
    batch, factors = batch_of(em), random_factors(em)
    plain = logits_of(em, batch)
    patched = em.with_patch(factors)
    low_rank = logits_of(patched, batch)
    with dense(em, factors):
        expected = logits_of(em, batch)
    torch.testing.assert_close(low_rank, expected, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(plain, expected, atol=1e-2)
    assert torch.equal(logits_of(em, batch), plain)
    assert count_hooks(em) == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_resume_is_exact_from_every_layer(family: str, editable: Editable) -> None:
    em = editable(family)
    batch = batch_of(em)
    seen = run(em, batch, hidden=range(LAYERS), logits=True)
    assert seen.logits is not None
    assert torch.isfinite(seen.logits).all()
    for layer in range(LAYERS):
        last = resume(em, layer, seen.hidden[layer], batch)
        assert torch.equal(em.head_logits(last), seen.logits), layer
    assert count_hooks(em) == 0
    assert not any("forward" in em.block(layer).__dict__ for layer in range(LAYERS))


@pytest.mark.parametrize("family", FAMILIES)
def test_resume_sees_changes_composes_with_a_patch_and_has_gradients(family: str, editable: Editable) -> None:
    em = editable(family)
    batch, factors = batch_of(em), random_factors(em)
    patched = em.with_patch(factors)
    seen = run(patched, batch, hidden=[1], logits=True)
    assert seen.logits is not None
    start = seen.hidden[1].clone().requires_grad_()
    logits = patched.head_logits(resume(patched, 1, start, batch))
    torch.testing.assert_close(logits, seen.logits)
    moved = patched.head_logits(resume(patched, 1, start + 1.0 * torch.randn_like(start), batch))
    assert not torch.allclose(moved, seen.logits, atol=1e-3)
    torch.autograd.backward(logits[0, batch.lengths[0] - 1].logsumexp(-1))
    assert start.grad is not None
    assert start.grad[0, : batch.lengths[0]].abs().sum() > 0
    assert not start.grad[1].any(), "one row's gradient reaches another"


def test_resume_runs_no_lower_block(editable: Editable) -> None:
    em = editable("gpt_neox")
    batch = batch_of(em)
    hidden = run(em, batch, hidden=[2]).hidden[2]

    def forbidden(output: Tensor) -> Tensor:
        raise AssertionError("a lower block ran")

    with replaced(em, {site: forbidden for site in em.sites() if site.layer <= 2}):
        resume(em, 2, hidden, batch)


def test_resume_after_the_last_layer_is_the_identity(editable: Editable) -> None:
    em = editable("llama")
    batch = batch_of(em)
    hidden = torch.randn(3, batch.ids.shape[1], em.hidden_size)
    assert resume(em, LAYERS - 1, hidden, batch) is hidden
    with pytest.raises(IndexError):
        resume(em, LAYERS, hidden, batch)


def test_padding_changes_nothing_for_the_real_tokens(editable: Editable) -> None:
    for family in FAMILIES:
        em = editable(family)
        together = logits_of(em, batch_of(em))
        for row, text in enumerate(TEXTS):
            alone = logits_of(em, batch_of(em, [text]))[0]
            torch.testing.assert_close(together[row, : alone.shape[0]], alone, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_run_captures_what_the_sites_see_and_write(family: str, editable: Editable) -> None:
    em = editable(family)
    batch = batch_of(em)
    sites = em.sites()
    seen = run(em, batch, inputs=sites, outputs=sites, hidden=range(LAYERS), stop=False)
    assert seen.logits is None
    parameters = dict(em.model.named_parameters())
    for site in sites:
        bias = parameters.get(f"{em.module_name(site)}.bias", torch.zeros(em.hidden_size))
        expected = seen.inputs[site] @ em.weight(site).T + bias
        torch.testing.assert_close(seen.outputs[site], expected, rtol=1e-4, atol=1e-4)
    if not em.family.post_norm:
        written = seen.outputs[Site(2, "attention")] + seen.outputs[Site(2, "mlp")]
        scaled = em.residual_multiplier * written
        torch.testing.assert_close(seen.hidden[2] - seen.hidden[1], scaled, rtol=1e-3, atol=1e-3)


def test_run_stops_after_the_last_layer_needed(editable: Editable) -> None:
    em = editable("gptj")

    def forbidden(output: Tensor) -> Tensor:
        raise AssertionError("a layer above ran")

    with replaced(em, {Site(2, "attention"): forbidden}):
        seen = run(em, batch_of(em), inputs=[Site(1, "mlp")], hidden=[0])
        assert set(seen.inputs) == {Site(1, "mlp")}
        assert set(seen.hidden) == {0}
        with pytest.raises(AssertionError, match="a layer above ran"):
            run(em, batch_of(em), hidden=[0], stop=False)
    assert count_hooks(em) == 0


def test_captures_include_the_patch(editable: Editable) -> None:
    em = editable("llama")
    batch, site = batch_of(em), Site(0, "mlp")
    factors = {site: random_factors(em)[site]}
    before = run(em, batch, inputs=[site], outputs=[site])
    patched = em.with_patch(factors)
    after = run(patched, batch, outputs=[site])
    torch.testing.assert_close(
        after.outputs[site] - before.outputs[site],
        factors[site].apply(before.inputs[site]),
        rtol=1e-3,
        atol=1e-4,
    )


def test_patches_add_up(editable: Editable) -> None:
    em = editable("olmo2")
    batch, one, two = batch_of(em), random_factors(em), random_factors(em)
    nested = logits_of(em.with_patch(one).with_patch(two), batch)
    patched = em.with_patch({site: one[site] + two[site] for site in one})
    torch.testing.assert_close(nested, logits_of(patched, batch), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_replacing_by_the_clean_values_restores_the_clean_run(family: str, editable: Editable) -> None:
    em = editable(family)
    batch = batch_of(em)
    clean = run(em, batch, hidden=[1], outputs=em.sites(), logits=True)
    assert clean.logits is not None

    def noisy(output: Tensor) -> Tensor:
        return output + torch.randn_like(output)

    with replaced(em, embeddings=noisy):
        corrupted = logits_of(em, batch)
    with replaced(em, embeddings=noisy, hidden={1: lambda _: clean.hidden[1]}):
        restored = logits_of(em, batch)
    assert not torch.allclose(corrupted[real(batch)], clean.logits[real(batch)], atol=1e-2)
    torch.testing.assert_close(restored, clean.logits)
    with replaced(em, dict.fromkeys(em.sites(), torch.zeros_like)):
        silent = run(em, batch, outputs=[Site(0, "mlp")], logits=True)
    assert not silent.outputs[Site(0, "mlp")].any()


def test_everything_is_removed_when_something_raises(editable: Editable) -> None:
    em = editable("gpt2")
    batch = batch_of(em)
    plain = logits_of(em, batch)

    def broken(output: Tensor) -> Tensor:
        raise RuntimeError("broken")

    with (
        pytest.raises(RuntimeError, match="broken"),
        replaced(em, {Site(3, "mlp"): broken}),
    ):
        run(em.with_patch(random_factors(em)), batch, hidden=[0], inputs=em.sites(), logits=True)
    with pytest.raises(RuntimeError, match="broken"), replaced(em, {Site(3, "mlp"): broken}):
        resume(em, 1, torch.zeros(3, batch.ids.shape[1], em.hidden_size), batch)
    assert count_hooks(em) == 0
    assert not any("forward" in em.block(layer).__dict__ for layer in range(LAYERS))
    assert torch.equal(logits_of(em, batch), plain)


def test_half_precision_models_add_the_factors_in_single(tmp_path_factory: pytest.TempPathFactory) -> None:
    from hubedit.model.load import load
    from tests.pico import pico

    folder = pico("llama", tmp_path_factory.mktemp("half"), dtype=torch.bfloat16)
    em = load(str(folder), device="cpu", dtype="bfloat16")
    site = Site(1, "mlp")
    factors = {site: random_factors(em)[site]}
    patched = em.with_patch(factors)
    seen = run(patched, batch_of(patched), inputs=[site], outputs=[site])
    assert seen.outputs[site].dtype == torch.bfloat16
    expected = seen.inputs[site] @ em.weight(site).T
    expected = (expected.float() + factors[site].apply(seen.inputs[site].float())).bfloat16()
    torch.testing.assert_close(seen.outputs[site], expected)
