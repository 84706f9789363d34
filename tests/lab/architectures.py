"""The four architectures of the lab: what differs between them is what an editor must cope with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from tests.lab.tokenizers import byte_level, metaspace
from tests.lab.world import World


@dataclass(frozen=True)
class Size:
    """Layers, widths and heads of a lab model; `context` is the longest text in tokens."""

    layers: int = 6
    hidden: int = 192
    intermediate: int = 768
    heads: int = 6
    kv_heads: int = 2
    context: int = 512


def _qwen2(size: Size, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """Rotary positions, biases on q/k/v, RMS norm, gated MLP, tied head."""
    config = Qwen2Config(**_common(size, tokenizer), tie_word_embeddings=True, use_sliding_window=False)
    return Qwen2ForCausalLM(config)


def _mistral(size: Size, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """As Qwen2, without biases, with an untied head."""
    config = MistralConfig(**_common(size, tokenizer), tie_word_embeddings=False, sliding_window=None)
    return MistralForCausalLM(config)


def _gpt_neox(size: Size, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """Attention and MLP in parallel, layer norm, fused q/k/v with biases, untied head."""
    shared = {
        k: v for k, v in _common(size, tokenizer).items() if k not in ("num_key_value_heads", "rms_norm_eps")
    }
    return GPTNeoXForCausalLM(GPTNeoXConfig(**shared, use_parallel_residual=True, tie_word_embeddings=False))


def _gpt2(size: Size, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """Learned positions, Conv1D weights (inputs x outputs), tied head."""
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=size.context,
        n_embd=size.hidden,
        n_layer=size.layers,
        n_head=size.heads,
        n_inner=size.intermediate,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return GPT2LMHeadModel(config)


def _common(size: Size, tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": size.hidden,
        "intermediate_size": size.intermediate,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.kv_heads,
        "max_position_embeddings": size.context,
        "rms_norm_eps": 1e-6,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "attn_implementation": "sdpa",
    }


_Build = Callable[[Size, PreTrainedTokenizerFast], PreTrainedModel]
_Tokenize = Callable[[World], PreTrainedTokenizerFast]

ARCHITECTURES: dict[str, tuple[_Build, _Tokenize]] = {
    "qwen2": (_qwen2, byte_level),
    "mistral": (_mistral, metaspace),
    "gpt_neox": (_gpt_neox, byte_level),
    "gpt2": (_gpt2, byte_level),
}


def make(arch: str, size: Size, world: World) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A fresh model (seed it before) and a tokenizer trained on the world's corpus."""
    build, tokenize = ARCHITECTURES[arch]
    tokenizer = tokenize(world)
    return build(size, tokenizer), tokenizer
