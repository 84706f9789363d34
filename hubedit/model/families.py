"""The model families that can be edited, as data: one row a family. No transformers here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from hubedit.errors import ModelError
from hubedit.model.sites import Site


@dataclass(frozen=True)
class Family:
    """Where a family keeps its parts, as module paths inside its `...ForCausalLM` class.

    `o_proj` and `down_proj` are relative to one block. `conv1d`: weights are stored (d_in, d_out).
    `post_norm`: what a site writes passes a norm before it is added to the residual stream.
    `attention`: the implementation to ask transformers for. `tied`: the head is the embeddings where
    config.json does not say (`tie_word_embeddings`). `loader`: transformers' class that loads it.
    `linear_proj`: the attention site of a layer of linear attention, in families that have such layers;
    `linear_layers`: which those are in the model at hand.
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
    loader: Literal["AutoModelForCausalLM", "AutoModelForImageTextToText"] = "AutoModelForCausalLM"
    linear_proj: str = ""
    linear_layers: frozenset[int] = frozenset()

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
        attention = self.linear_proj if site.layer in self.linear_layers else self.o_proj
        part = attention if site.kind == "attention" else self.down_proj
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


def _with_vision(name: str, **different: Any) -> Family:
    """Built like Llama beside a vision tower, of which nothing is edited; questions are text alone."""
    part = "model.language_model"
    return replace(
        _llama_like(name, **different),
        blocks=f"{part}.layers",
        final_norm=f"{part}.norm",
        embeddings=f"{part}.embed_tokens",
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
    _with_vision("gemma3", post_norm=True, tied=True),
    _llama_like("phi3"),
    _llama_like("olmo2", post_norm=True),
    _llama_like("olmo3", post_norm=True),
    _llama_like("smollm3", tied=True),
    _llama_like("granite"),
    _llama_like("ministral3"),
    # transformers has no class for its text part alone
    _with_vision("mistral3", loader="AutoModelForImageTextToText", tied=True),
    # three of four layers are of linear attention; of a model with a vision tower the text part is loaded
    _llama_like("qwen3_5_text", linear_proj="linear_attn.out_proj"),
    _llama_like("qwen3_5", linear_proj="linear_attn.out_proj"),
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
_MULTIMODAL = ("gemma3n", "llava", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "llama4", "mllama")
_TEXT_PART = "save its language model as a checkpoint of its own, or take a text-only model"
_LAYER_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_MOST_LAYERS = 10_000  # a damaged count would be built layer by layer until the memory is full
_EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


def family_of(config: Any) -> Family:
    """The family of a model, from its configuration (an object with config.json's fields as attributes).

    Raises ModelError for anything that cannot be edited: unknown families, mixtures of experts,
    quantised weights, encoder-decoders, most multimodal models, and most hybrids whose layers are not all
    attention.
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
    for field in _LAYER_COUNTS:
        if any(isinstance(count, (int, float)) and count > _MOST_LAYERS for count in _values(config, field)):
            message = f"{field} of config.json is more than {_MOST_LAYERS:,}: no model has so many layers"
            raise ModelError(message, "correct it, or download the model again")
    experts = [count for field in _EXPERT_COUNTS for count in _values(config, field)]
    if any(isinstance(count, int) and count > 1 for count in experts):
        raise ModelError(f"{name} is a mixture of experts, which is not supported", _dense())
    family = FAMILIES.get(name) if isinstance(name, str) else None
    layers = _layer_types(config)
    if family is not None and family.linear_proj:
        return _hybrid(family, layers)
    if kinds := sorted({kind for kind in layers if not kind.endswith("attention") or kind in _LINEAR}):
        raise ModelError(
            f"{name} has layers of {kinds[0]}, and no row that says what is edited there", _supported()
        )
    if name in _MULTIMODAL:
        raise ModelError(f"{name} is multimodal, and transformers has no text-only class for it", _TEXT_PART)
    if family is None:
        what = f"model family {name!r} is not supported" if name else "config.json names no model_type"
        raise ModelError(what, _supported())
    return family


def _layer_types(config: Any) -> tuple[str, ...]:
    """What kind each layer is (`layer_types`); () where all are of one."""
    return tuple(str(kind) for layers in _values(config, "layer_types")[:1] for kind in layers)


def _values(config: Any, field: str) -> list[Any]:
    """A field of the configuration and of a multimodal model's text part, where they have it."""
    text = getattr(config, "text_config", None)
    inner = text.get(field) if isinstance(text, dict) else getattr(text, field, None)
    return [value for value in (getattr(config, field, None), inner) if value]


def _hybrid(family: Family, layers: tuple[str, ...]) -> Family:
    """The family with those of its layers that are of linear attention."""
    if not set(layers) <= {"linear_attention", "full_attention"} or not layers:
        kinds = ", ".join(sorted(set(layers))) or "none"
        raise ModelError(
            f"config.json names layer_types that {family.name} does not have ({kinds})",
            "download the model again; linear_attention and full_attention are known",
        )
    linear = frozenset(n for n, kind in enumerate(layers) if kind == "linear_attention")
    return replace(family, linear_layers=linear)


def _dense() -> str:
    return f"take a dense model: {', '.join(sorted(FAMILIES))}"


def _supported() -> str:
    return f"supported: {', '.join(sorted(FAMILIES))}; a new one is one row in hubedit/model/families.py"
