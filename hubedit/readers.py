"""What the readers of a LoRA adapter make of a patch: as data, one row a reader. None is imported."""

from __future__ import annotations

from dataclasses import dataclass

from hubedit.patch.adapter import MOST_RANK

_VLLM_DEFAULT = 16
# vLLM's list of supported models has no LoRA for these (checked for 0.4 to 0.7; docs/patch.md)
_NO_LORA_IN_VLLM = frozenset({"gpt2", "gptj", "gpt_neox"})
_MERGE = "merge it into the weights: hubedit merge"


@dataclass(frozen=True)
class Reading:
    """`loads`: whether the reader takes the adapter; `how`: the option that it needs, or the way around."""

    reader: str
    loads: bool
    how: str


def readings(family: str, rank: int) -> tuple[Reading, ...]:
    """Each reader's verdict on a patch of a rank for a family's model."""
    return (
        Reading("PEFT", True, "PeftModel.from_pretrained(base, PATCH)"),
        Reading("transformers", True, "model.load_adapter(PATCH), with 5.8 or newer"),
        _vllm(family, rank),
        Reading("llama.cpp", family != "gpt2", _llama_cpp(family)),
        Reading("mlx-lm", False, f"it has adapters of its own; {_MERGE}"),
    )


def _vllm(family: str, rank: int) -> Reading:
    if family in _NO_LORA_IN_VLLM:
        return Reading("vLLM", False, f"no LoRA for this family; {_MERGE}")
    if rank > MOST_RANK:
        return Reading("vLLM", False, f"rank {rank} is above {MOST_RANK}; --rank {MOST_RANK}, or {_MERGE}")
    option = f" --max-lora-rank {rank}" if rank > _VLLM_DEFAULT else ""
    return Reading("vLLM", True, f"vllm serve BASE --enable-lora{option} --lora-modules edit=PATCH")


def _llama_cpp(family: str) -> str:
    if family == "gpt2":
        return f"its converter transposes GPT-2's factors wrongly; {_MERGE}"
    return "convert_lora_to_gguf.py PATCH --base BASE, where its converter knows the family"
