"""The model families that can be edited, as data: one row a family. No transformers here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from hubedit.errors import ModelError
from hubedit.model.sites import Site


@dataclass(frozen=True)
class Family:
    """Where a family keeps its parts, as module paths inside its `...ForCausalLM` class.

    `o_proj` and `down_proj` are relative to one block. `conv1d`: weights are stored (d_in, d_out).
    `post_norm`: what a site writes passes a norm before it is added to the residual stream.
    `attention`: the implementation to ask transformers for. `tied`: the head is the embeddings where
    config.json does not say (`tie_word_embeddings`).
    """

    name: str
    blocks: str
    o_proj: str
    down_proj: str
    final_norm: str
    embeddings: str
    head: str = "lm_head"
    conv1d: bool = False
    post_norm: bool = False
    attention: Literal["sdpa", "eager"] = "sdpa"
    tied: bool = False

    def block_name(self, layer: int) -> str:
        """Module path of a block, e.g. "model.layers.3"."""
        return f"{self.blocks}.{layer}"

    def mlp_name(self, layer: int) -> str:
        """Module path of a block's MLP, which `down_proj` ends."""
        return f"{self.block_name(layer)}.{self.down_proj.rpartition('.')[0]}"

    def norm_after(self, site: Site) -> str | None:
        """Module path of the norm between a site's output and the residual stream, where there is one."""
        if not self.post_norm:
            return None
        part = "post_attention_layernorm" if site.kind == "attention" else "post_feedforward_layernorm"
        return f"{self.block_name(site.layer)}.{part}"

    def site_name(self, site: Site) -> str:
        """Module path of a site as PEFT names it, e.g. "model.layers.3.mlp.down_proj"."""
        part = self.o_proj if site.kind == "attention" else self.down_proj
        return f"{self.block_name(site.layer)}.{part}"


def _llama_like(name: str, **different: Any) -> Family:
    return Family(
        name,
        blocks="model.layers",
        o_proj="self_attn.o_proj",
        down_proj="mlp.down_proj",
        final_norm="model.norm",
        embeddings="model.embed_tokens",
        **different,
    )


def _gpt2_like(name: str, o_proj: str, down_proj: str, **different: Any) -> Family:
    return Family(
        name,
        blocks="transformer.h",
        o_proj=o_proj,
        down_proj=down_proj,
        final_norm="transformer.ln_f",
        embeddings="transformer.wte",
        **different,
    )


_ROWS = (
    _llama_like("qwen2"),
    _llama_like("qwen3"),
    _llama_like("mistral"),
    _llama_like("llama"),
    # sdpa has no soft-capping of attention scores, which Gemma 2 needs
    _llama_like("gemma2", post_norm=True, attention="eager", tied=True),
    _llama_like("gemma3_text", post_norm=True, tied=True),
    # with its vision tower, of which nothing is edited; questions are text alone
    Family(
        "gemma3",
        blocks="model.language_model.layers",
        o_proj="self_attn.o_proj",
        down_proj="mlp.down_proj",
        final_norm="model.language_model.norm",
        embeddings="model.language_model.embed_tokens",
        post_norm=True,
        tied=True,
    ),
    _llama_like("phi3"),
    _llama_like("olmo2", post_norm=True),
    _llama_like("olmo3", post_norm=True),
    _llama_like("smollm3", tied=True),
    _llama_like("granite"),
    _llama_like("ministral3"),
    _gpt2_like("gpt2", "attn.c_proj", "mlp.c_proj", conv1d=True, tied=True),
    _gpt2_like("gptj", "attn.out_proj", "mlp.fc_out", attention="eager"),
    Family(
        "gpt_neox",
        blocks="gpt_neox.layers",
        o_proj="attention.dense",
        down_proj="mlp.dense_4h_to_h",
        final_norm="gpt_neox.final_layer_norm",
        embeddings="gpt_neox.embed_in",
    ),
)

FAMILIES: dict[str, Family] = {row.name: row for row in _ROWS}
"""Every supported family by the `model_type` of its config.json."""

# attention by its name, a recurrent state by what it computes
_LINEAR = ("linear_attention", "lightning_attention")
_MULTIMODAL = ("mistral3", "gemma3n", "llava", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "llama4", "mllama")
_TEXT_PART = "save its language model as a checkpoint of its own, or take a text-only model"
_EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


def family_of(config: Any) -> Family:
    """The family of a model, from its configuration (an object with config.json's fields as attributes).

    Raises ModelError for anything that cannot be edited: unknown families, mixtures of experts,
    quantised weights, encoder-decoders, most multimodal models, and
    hybrids whose layers are not all attention.
    """
    name = getattr(config, "model_type", None)
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(
            f"{name or 'this model'} is an encoder-decoder", "only decoder-only language models can be edited"
        )
    if getattr(config, "quantization_config", None):
        raise ModelError(
            "quantised weights cannot be edited",
            "edit the model's unquantised checkpoint, then quantise the result",
        )
    experts = [getattr(config, field, None) for field in _EXPERT_COUNTS]
    if any(isinstance(count, int) and count > 1 for count in experts):
        raise ModelError(f"{name} is a mixture of experts, which is not supported", _dense())
    if kinds := _recurrent(config):
        raise ModelError(
            f"{name} has layers of {kinds[0]}, without an attention site and without keys to keep",
            "hybrid models cannot be edited yet; take one of attention throughout, such as Qwen 3",
        )
    if name in _MULTIMODAL:
        raise ModelError(f"{name} is multimodal, and transformers has no text-only class for it", _TEXT_PART)
    family = FAMILIES.get(name) if isinstance(name, str) else None
    if family is None:
        what = f"model family {name!r} is not supported" if name else "config.json names no model_type"
        raise ModelError(what, _supported())
    return family


def _recurrent(config: Any) -> list[str]:
    """The kinds of layers that are no attention (`layer_types`, also of a multimodal model's text part)."""
    text = getattr(config, "text_config", None)
    own = text.get("layer_types") if isinstance(text, dict) else getattr(text, "layer_types", None)
    found = [*(getattr(config, "layer_types", None) or ()), *(own or ())]
    return sorted({str(kind) for kind in found if not str(kind).endswith("attention") or kind in _LINEAR})


def _dense() -> str:
    return f"take a dense model: {', '.join(sorted(FAMILIES))}"


def _supported() -> str:
    return f"supported: {', '.join(sorted(FAMILIES))}; a new one is one row in hubedit/model/families.py"
