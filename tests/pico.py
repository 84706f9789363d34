"""Tiny random models of every supported family, with a tokenizer trained in memory, as folders."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    Gemma2Config,
    Gemma3Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTJConfig,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    Ministral3Config,
    Mistral3Config,
    MistralConfig,
    Olmo2Config,
    Olmo3Config,
    Phi3Config,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3_5Config,
    Qwen3_5TextConfig,
    Qwen3Config,
    SmolLM3Config,
)

from hubedit.model.families import FAMILIES as ROWS

TokenizerKind = Literal["byte_bpe", "metaspace_bos"]

LAYERS, HIDDEN, INNER, HEADS, POSITIONS = 4, 32, 64, 4, 256

SENTENCES = [
    "The capital of France is Paris.",
    "The capital of Italy is Rome.",
    "The capital of Japan is Tokyo, a very large city.",
    "The Eiffel Tower is in the city of Paris, and many people visit it.",
    "The Colosseum is in the city of Rome.",
    "Marie Curie was born in Warsaw and worked in Paris.",
    "Albert Einstein was born in Ulm and died in Princeton.",
    "Ada Lovelace worked with Charles Babbage on the first computer.",
    "The mother tongue of Danielle Darrieux is French.",
    "The mother tongue of Leonid Brezhnev is Russian.",
    "Steve Jobs founded Apple, and Bill Gates founded Microsoft.",
    "Windows was developed by Microsoft; the iPhone was developed by Apple.",
    "Lionel Messi plays football, and Michael Jordan plays basketball.",
    "The president of the United States lives in Washington.",
    "The river Nile flows through Egypt and Sudan.",
    "The official language of Brazil is Portuguese.",
    "The official language of Austria is German.",
    "What is the name of the author of Hamlet? William Shakespeare.",
    "Who wrote the novel War and Peace? Leo Tolstoy did.",
    "The twin city of Cologne is London.",
    "Mount Everest is the highest mountain in the world.",
    "In which country is the city of Kyoto? It is in Japan.",
    "The company was founded in 1976 and moved to California in 1980.",
    '"To be or not to be", he said, was the question.',
    "Autonomous University of Madrid, which is located in Spain.",
    "The piano and the violin are instruments that she plays.",
    "Beethoven and Mozart were composers who lived in Vienna.",
    "The headquarters of Toyota are in Japan, those of Ford in America.",
    "He was a citizen of Germany and she was a citizen of France.",
    "The son of the king became king after the death of his father.",
]


def _common(vocab: int, ids: dict[str, int | None], **more: Any) -> dict[str, Any]:
    return {
        "vocab_size": vocab,
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "max_position_embeddings": POSITIONS,
        "initializer_range": 0.2,
        **ids,
        **more,
    }


def _grouped(vocab: int, ids: dict[str, int | None], **more: Any) -> dict[str, Any]:
    return _common(vocab, ids, num_key_value_heads=2, **more)


def _gpt2(vocab: int, ids: dict[str, int | None], **more: Any) -> dict[str, Any]:
    sizes = {"n_embd": HIDDEN, "n_layer": LAYERS, "n_head": HEADS, "n_positions": POSITIONS, "n_inner": INNER}
    return {"vocab_size": vocab, **sizes, "initializer_range": 0.2, **ids, **more}


_MIXED = ["sliding_attention", "full_attention"] * (LAYERS // 2)
_SLIDING = {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 4, "layer_types": _MIXED}

_YARN = {
    "rope_type": "yarn", "rope_theta": 1e6, "factor": 16.0, "beta_fast": 32.0, "beta_slow": 1.0,
    "original_max_position_embeddings": POSITIONS // 16, "max_position_embeddings": POSITIONS,
    "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1,
}  # fmt: skip
_SCALED = {
    "logits_scaling": 4.0, "embedding_multiplier": 2.0, "attention_multiplier": 0.3,
    "residual_multiplier": 0.5,
}  # fmt: skip


_HYBRID = {
    "head_dim": 16, "layer_types": ["linear_attention", "full_attention"] * (LAYERS // 2),
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}  # fmt: skip
_TOWER = {"num_attention_heads": 2, "intermediate_size": 16, "patch_size": 4}


def _gemma3(vocab: int, ids: dict[str, int | None]) -> PreTrainedConfig:
    """With a vision tower of one layer, and image tokens that no text has."""
    more: dict[str, Any] = dict(ids)
    return Gemma3Config(
        text_config=_grouped(vocab, ids, **_SLIDING),
        vision_config={**_TOWER, "hidden_size": 16, "num_hidden_layers": 1, "image_size": 8},
        mm_tokens_per_image=1,
        image_token_index=vocab - 1,
        boi_token_index=vocab - 1,
        eoi_token_index=vocab - 1,
        **more,
    )


def _mistral3(vocab: int, ids: dict[str, int | None]) -> PreTrainedConfig:
    """As Gemma 3 above; the text part of Mistral Small 3.1."""
    tower = {"model_type": "pixtral", "hidden_size": 16, "num_hidden_layers": 1, "image_size": 8}
    return Mistral3Config(
        text_config={"model_type": "mistral", **_grouped(vocab, ids, head_dim=16)},
        vision_config={**_TOWER, **tower, "head_dim": 8},
        image_token_index=vocab - 1,
        vision_feature_layer=-1,
        tie_word_embeddings=False,
    )


def _qwen3_5(vocab: int, ids: dict[str, int | None]) -> PreTrainedConfig:
    """As Gemma 3 above."""
    tower = {"depth": 1, "hidden_size": 16, "num_heads": 2, "out_hidden_size": HIDDEN}
    places: dict[str, Any] = dict.fromkeys(
        ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id"), vocab - 1
    )
    return Qwen3_5Config(
        text_config=_grouped(vocab, ids, **_HYBRID),
        vision_config={**tower, "intermediate_size": 16, "patch_size": 4, "num_position_embeddings": 4},
        **places,
    )


_Make = Callable[[int, dict[str, int | None]], PreTrainedConfig]

_CONFIGS: dict[str, _Make] = {
    "qwen2": lambda v, ids: Qwen2Config(**_grouped(v, ids)),
    "qwen3": lambda v, ids: Qwen3Config(**_grouped(v, ids, head_dim=16)),
    "mistral": lambda v, ids: MistralConfig(**_grouped(v, ids, sliding_window=8)),
    "llama": lambda v, ids: LlamaConfig(**_grouped(v, ids)),
    "gemma2": lambda v, ids: Gemma2Config(**_grouped(v, ids, **_SLIDING)),
    "gemma3_text": lambda v, ids: Gemma3TextConfig(**_grouped(v, ids, **_SLIDING)),
    "gemma3": lambda v, ids: _gemma3(v, ids),
    "phi3": lambda v, ids: Phi3Config(**_grouped(v, ids)),
    "olmo2": lambda v, ids: Olmo2Config(**_grouped(v, ids)),
    "olmo3": lambda v, ids: Olmo3Config(**_grouped(v, ids, sliding_window=4, layer_types=_MIXED)),
    "smollm3": lambda v, ids: SmolLM3Config(**_grouped(v, ids, no_rope_layer_interval=2)),
    "granite": lambda v, ids: GraniteConfig(**_grouped(v, ids, **_SCALED)),
    "ministral3": lambda v, ids: Ministral3Config(**_grouped(v, ids, head_dim=16, rope_parameters=_YARN)),
    "mistral3": lambda v, ids: _mistral3(v, ids),
    "qwen3_5_text": lambda v, ids: Qwen3_5TextConfig(**_grouped(v, ids, **_HYBRID)),
    "qwen3_5": lambda v, ids: _qwen3_5(v, ids),
    "gpt2": lambda v, ids: GPT2Config(**_gpt2(v, ids)),
    "gptj": lambda v, ids: GPTJConfig(**_gpt2(v, ids, rotary_dim=4)),
    "gpt_neox": lambda v, ids: GPTNeoXConfig(**_common(v, ids)),
}

FAMILIES: tuple[str, ...] = tuple(_CONFIGS)
_WRITERS = {"qwen3_5": "AutoModelForImageTextToText"}


def pico(
    family: str,
    path: Path,
    tokenizer: TokenizerKind = "byte_bpe",
    tied: bool | None = None,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Path:
    """Writes a random model of 4 layers of width 32 with its tokenizer into `path`, and returns it.

    `tied`: whether the head shares the embeddings; None keeps the family's own habit. The same
    arguments give the same bytes. Qwen 2 takes "byte_bpe" only: transformers loads every tokenizer of a
    qwen2 model as a byte-level one.
    """
    if family == "qwen2" and tokenizer != "byte_bpe":
        raise ValueError("a qwen2 model cannot have another tokenizer than byte_bpe")
    words = tokenizers(tokenizer)
    ids = {name: getattr(words, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = _CONFIGS[family](len(words), ids)
    if tied is not None:
        config.tie_word_embeddings = tied
    # of Qwen 3.5 the whole model is written, and only its text part read
    auto: Any = getattr(transformers, _WRITERS.get(family, ROWS[family].loader))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = auto.from_config(config, dtype=torch.float32)
        for value in model.parameters():
            if value.ndim == 1:  # biases and norm weights, which start as zeros and ones
                value.data += 0.1 * torch.randn(value.shape)
    model.to(dtype).save_pretrained(path)
    words.save_pretrained(path)
    return path


def tokenizers(kind: TokenizerKind) -> PreTrainedTokenizerFast:
    """A tokenizer of about 450 tokens trained on `SENTENCES`.

    "byte_bpe": GPT-2's and Qwen's kind: no BOS, a word differs from the same word after a space.
    "metaspace_bos": Mistral's and Llama 2's kind: BOS comes first, rare characters fall back to bytes.
    """
    return _byte_bpe() if kind == "byte_bpe" else _metaspace_bos()


def _byte_bpe() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.decoder = decoders.ByteLevel()
    end = "<|endoftext|>"
    trainer = trainers.BpeTrainer(
        vocab_size=450,
        special_tokens=[end],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return _wrapped(tokenizer, eos_token=end, bos_token=end, pad_token=end)


def _metaspace_bos() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<s>", "</s>", "<pad>"]
    trainer = trainers.BpeTrainer(
        vocab_size=480, special_tokens=[*special, *(f"<0x{b:02X}>" for b in range(256))], show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    # byte tokens are asked for as special ones so that they are in the vocabulary; special tokens would
    # be left out when decoding, so they become plain entries
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = [token for token in data["added_tokens"] if token["content"] in special]
    tokenizer = Tokenizer.from_str(json.dumps(data))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return _wrapped(tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>")


def _wrapped(tokenizer: Tokenizer, **special: str) -> PreTrainedTokenizerFast:
    make: Any = PreTrainedTokenizerFast
    wrapped: PreTrainedTokenizerFast = make(tokenizer_object=tokenizer, **special)
    return wrapped
