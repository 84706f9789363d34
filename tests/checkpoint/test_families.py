"""Merged checkpoints of every family, by transformers and PEFT: the readers that people use."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from hubedit.checkpoint.merge import merge
from hubedit.checkpoint.revert import revert
from hubedit.model.load import load
from hubedit.patch import Patch
from hubedit.patch.foreign import load_any
from tests.checkpoint.tiny import content, local, one_rounding
from tests.patch.test_consumers import patch_for
from tests.pico import FAMILIES, pico

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft")
AUTO: Any = AutoModelForCausalLM
DTYPES = {"gpt2": torch.float16, "llama": torch.float16, "qwen3": torch.float32, "gpt_neox": torch.float32}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_merged_checkpoint_is_what_peft_makes_and_answers_as_the_adapter(
    tmp_path: Path, family: str
) -> None:
    dtype = DTYPES.get(family, torch.bfloat16)
    base = pico(family, tmp_path / "base", dtype=dtype)
    em = load(str(base), device="cpu", dtype="float32")
    made = patch_for(em)
    path = made.save(tmp_path / "patch")
    out = merge([Patch.load(path)], local(base), tmp_path / "out").path

    def model(folder: Path) -> Any:
        return (
            getattr(transformers, em.family.loader)
            .from_pretrained(folder, dtype=torch.float32, attn_implementation=em.family.attention)
            .eval()
        )

    old, new = model(base).state_dict(), model(out).state_dict()
    adapted = PeftModel.from_pretrained(model(base), str(path)).eval()
    ids = torch.randint(5, em.vocabulary - 1, (1, 9))
    with torch.no_grad():
        logits = adapted(input_ids=ids).logits
        merged = model(out)(input_ids=ids).logits
    by_peft = adapted.merge_and_unload().state_dict()
    assert set(old) == set(new) == set(by_peft)
    for name, tensor in new.items():
        factor = made.factors.get(name.removesuffix(".weight"))
        if factor is None:
            assert torch.equal(tensor, old[name]), name
            continue
        assert one_rounding(tensor.to(dtype), old[name], factor, transposed=made.fan_in_fan_out), name
        # PEFT's float32 sum, rounded, is the same but for sums next to the middle of two stored numbers
        rounded = by_peft[name].to(dtype).float()
        assert float((rounded - tensor).abs().max()) <= torch.finfo(dtype).eps * float(tensor.abs().max())
        assert float((rounded != tensor).float().mean()) < (0.01 if dtype != torch.float32 else 0.5), name
    assert float((merged - logits).abs().max()) < (1e-3 if dtype == torch.float32 else 0.5)
    # the tokenizer came along, and the answers are the adapter's
    tokenizer: Any = AutoTokenizer.from_pretrained(out)
    words = tokenizer("The capital of France is", return_tensors="pt")
    said = model(out).generate(**words, max_new_tokens=5, do_sample=False)
    assert said.shape[1] == words["input_ids"].shape[1] + 5
    before = content(base)
    revert(out)
    assert content(out) == before


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_merged_model_answers_exactly_as_the_adapter_in_float32(
    pico_path: Callable[..., Path], tmp_path: Path, family: str
) -> None:
    base = pico_path(family)
    em = load(str(base), device="cpu")
    path = patch_for(em).save(tmp_path / "patch")
    out = merge([Patch.load(path)], local(base), tmp_path / "out").path
    tokenizer: Any = AutoTokenizer.from_pretrained(out)
    adapted = PeftModel.from_pretrained(AUTO.from_pretrained(base, dtype=torch.float32), str(path)).eval()
    merged = AUTO.from_pretrained(out, dtype=torch.float32).eval()
    for prompt in ("The capital of France is", "He was a citizen of"):
        words = tokenizer(prompt, return_tensors="pt")
        answers = [m.generate(**words, max_new_tokens=8, do_sample=False).tolist() for m in (adapted, merged)]
        assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("family", "targets"),
    [
        ("llama", ["q_proj", "v_proj", "o_proj", "down_proj"]),
        ("gpt2", ["c_attn", "c_proj"]),
        ("phi3", ["qkv_proj", "gate_up_proj"]),
        ("gpt_neox", ["query_key_value", "dense_4h_to_h"]),
    ],
)
@pytest.mark.parametrize("rslora", [False, True])
def test_adapters_of_other_tools_are_merged_as_peft_merges_them(
    pico_path: Callable[..., Path], tmp_path: Path, family: str, targets: list[str], rslora: bool
) -> None:
    base = pico_path(family)

    def model() -> Any:
        return AUTO.from_pretrained(base, dtype=torch.float32).eval()

    config = LoraConfig(
        r=4, lora_alpha=24, target_modules=targets, use_rslora=rslora, fan_in_fan_out=family == "gpt2"
    )
    trained = get_peft_model(model(), config)
    for name, value in trained.named_parameters():
        if "lora_B" in name:
            value.data = 0.05 * torch.randn_like(value)
    trained.save_pretrained(str(tmp_path / "lora"))
    if family == "gpt2" and rslora:
        # as an adapter that was trained without saying so; PEFT corrects it when it loads one
        file = tmp_path / "lora" / "adapter_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "fan_in_fan_out": False}))
    done = merge([load_any(tmp_path / "lora")], local(base), tmp_path / "out")
    assert "does not say which weights it was made for" in done.warnings[0]
    expected = trained.merge_and_unload().state_dict()
    found = AUTO.from_pretrained(done.path, dtype=torch.float32).state_dict()
    changed = 0
    for name, tensor in expected.items():
        assert torch.allclose(found[name], tensor, atol=1e-6), name
        changed += not torch.equal(tensor, model().state_dict()[name]) if "lora" not in name else 0
    assert changed == len(done.record.tensors)
    before = content(base)
    revert(done.path)
    assert content(done.path) == before
