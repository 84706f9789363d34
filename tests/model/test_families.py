"""The family table fits what transformers builds."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hubedit.errors import ModelError
from hubedit.model.editable import EditableModel
from hubedit.model.families import FAMILIES, family_of
from hubedit.model.hooks import run
from hubedit.model.sites import Site
from hubedit.model.tokens import pad
from tests import pico

Editable = Callable[..., EditableModel]


def test_every_row_has_a_tiny_model() -> None:
    assert set(FAMILIES) == set(pico.FAMILIES)


@pytest.mark.parametrize("family", pico.FAMILIES)
def test_sites_are_the_modules_that_write_into_the_residual_stream(family: str, editable: Editable) -> None:
    em = editable(family)
    names = dict(em.model.named_modules())
    assert (em.num_layers, em.hidden_size) == (pico.LAYERS, pico.HIDDEN)
    assert len(em.sites()) == 2 * pico.LAYERS
    for site in em.sites():
        assert names[em.module_name(site)] is em.site(site)
        assert em.weight(site).shape == (pico.HIDDEN, em.d_in(site))
    assert em.d_in(Site(0, "mlp")) == pico.INNER
    assert em.block(1) is names[em.family.block_name(1)]
    ids = torch.tensor([[1, 2]])
    assert em.embeddings()(ids).shape == (1, 2, pico.HIDDEN)
    model: Any = em.model  # it has no annotations
    assert em.embeddings() is model.get_input_embeddings()
    assert em.head() is model.get_output_embeddings()
    assert em.family.tied == type(em.model.config)().tie_word_embeddings


@pytest.mark.parametrize("family", pico.FAMILIES)
def test_weight_is_a_view_that_maps_inputs_to_outputs(family: str, editable: Editable) -> None:
    em = editable(family)
    site = Site(1, "mlp")
    x = torch.randn(3, em.d_in(site))
    parameters = dict(em.model.named_parameters())
    bias = parameters.get(f"{em.module_name(site)}.bias", torch.zeros(em.hidden_size))
    torch.testing.assert_close(em.site(site)(x), x @ em.weight(site).T + bias)
    assert em.weight(site).data_ptr() == parameters[f"{em.module_name(site)}.weight"].data_ptr()


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"model_type": "mamba"}, "one row in hubedit/model/families.py"),
        ({"model_type": "mixtral", "num_local_experts": 8}, "mixture of experts"),
        ({"model_type": "qwen2", "num_experts": 4}, "mixture of experts"),
        ({"model_type": "mistral3", "text_config": {"n_routed_experts": 128}}, "mixture of experts"),
        ({"model_type": "llama", "quantization_config": {"bits": 4}}, "quantised"),
        ({"model_type": "t5", "is_encoder_decoder": True}, "encoder-decoder"),
        ({"model_type": "llava"}, "multimodal"),
        ({"model_type": "llama", "num_hidden_layers": 1 << 70}, "no model has so many layers"),
        ({"model_type": "gpt2", "n_layer": 1e308}, "no model has so many layers"),
        (
            {"model_type": "gemma3", "text_config": {"num_hidden_layers": 10**6}},
            "no model has so many layers",
        ),
        ({"model_type": "qwen3_next", "layer_types": ["linear_attention", "full_attention"]}, "no row"),
        ({"model_type": "llama", "layer_types": ["linear_attention", "full_attention"]}, "no row"),
        ({"model_type": "lfm2", "layer_types": ["conv", "full_attention"]}, "layers of conv"),
        ({"model_type": "qwen3_5_text"}, "layer_types"),
        ({"model_type": "qwen3_5", "text_config": {"layer_types": ["linear_attention", "mamba"]}}, "mamba"),
        ({"model_type": "llama", "layer_types": ["full_attention", "mamba"]}, "layers of mamba"),
        ({}, "no model_type"),
    ],
)
def test_what_cannot_be_edited_is_refused(config: dict[str, Any], says: str) -> None:
    with pytest.raises(ModelError, match=says):
        family_of(SimpleNamespace(**config))


def test_a_dense_model_with_expert_fields_is_accepted() -> None:
    assert (
        family_of(SimpleNamespace(model_type="llama", num_local_experts=1, num_experts=None)).name == "llama"
    )


def test_the_hash_sees_one_changed_number(editable: Editable) -> None:
    em = editable("gpt2")
    before = em.weights_hash()
    weight = em.weight(Site(0, "mlp"))
    old = weight[0, 0].clone()
    weight[0, 0] += 1
    assert em.weights_hash() != before
    weight[0, 0] = old
    assert em.weights_hash() == before


@pytest.mark.parametrize("family", ["qwen3_5_text", "qwen3_5"])
def test_a_layer_of_linear_attention_has_a_site_of_its_own(family: str, editable: Editable) -> None:
    em = editable(family)
    names = [em.module_name(Site(layer, "attention")) for layer in range(pico.LAYERS)]
    linear, full = "linear_attn.out_proj", "self_attn.o_proj"
    assert names == [f"model.layers.{n}.{part}" for n, part in enumerate([linear, full] * 2)]


@pytest.mark.parametrize("family", pico.FAMILIES)
def test_norms_behind_sites_are_named_where_there_are_any(family: str, editable: Editable) -> None:
    em = editable(family)
    names = dict(em.model.named_modules())
    for site in em.sites():
        name = em.family.norm_after(site)
        assert (name in names) if em.family.post_norm else (name is None)


@pytest.mark.parametrize("family", [f for f in pico.FAMILIES if FAMILIES[f].post_norm])
@torch.no_grad()
def test_a_block_adds_what_the_two_norms_give(family: str, editable: Editable) -> None:
    em = editable(family)
    given: list[torch.Tensor] = []
    sites = [Site(1, "attention"), Site(1, "mlp")]
    norms = [em.model.get_submodule(str(em.family.norm_after(site))) for site in sites]
    hooks = [norm.register_forward_hook(lambda module, args, out: given.append(out)) for norm in norms]
    try:
        hidden = run(em, pad([(5, 6, 7, 8)], em.pad_id), hidden=[0, 1]).hidden
    finally:
        for hook in hooks:
            hook.remove()
    assert len(given) == 2
    torch.testing.assert_close(hidden[1], hidden[0] + given[0] + given[1], atol=1e-4, rtol=1e-4)
