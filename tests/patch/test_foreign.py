"""Adapters of other tools: the same change as PEFT makes of them, or refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from hubedit.errors import HubEditError, PatchError
from hubedit.patch import Patch
from hubedit.patch.foreign import load_any
from hubedit.patch.same_base import is_foreign
from tests.patch.recorded import recorded

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft")
Pico = Callable[..., Path]

PLAIN: dict[str, dict[str, Any]] = {
    "list": {"target_modules": ["q_proj", "k_proj"]},
    "alpha": {"target_modules": ["q_proj", "down_proj"], "r": 3, "lora_alpha": 7},
    "rslora": {"target_modules": ["o_proj"], "r": 5, "lora_alpha": 4, "use_rslora": True},
    "regex": {"target_modules": r".*\.(1|3)\.mlp\.(up|down)_proj"},
    "all-linear": {"target_modules": "all-linear"},
    "patterns": {
        "target_modules": ["q_proj", "v_proj", "up_proj"],
        "r": 4,
        "lora_alpha": 6,
        "rank_pattern": {"layers.1.self_attn.q_proj": 2, "v_proj": 7},
        "alpha_pattern": {"v_proj": 5, r"^model.layers.2.mlp.up_proj": 1},
        "use_rslora": True,
    },
    "layers": {"target_modules": ["q_proj"], "layers_to_transform": [0, 2], "layers_pattern": "layers"},
    "excluded": {
        "target_modules": ["q_proj", "v_proj"],
        "exclude_modules": ["model.layers.0.self_attn.q_proj"],
    },
    "gaussian": {"target_modules": ["q_proj"], "init_lora_weights": "gaussian"},
    "head": {"target_modules": ["lm_head"]},
}


def base_model(path: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)


def adapter(
    path: Path, out: Path, dtype: torch.dtype = torch.float32, whole: bool = False, **config: Any
) -> Path:
    """An adapter with random factors, saved by PEFT itself; `whole`: with the embeddings it wraps."""
    model = get_peft_model(base_model(path), LoraConfig(task_type="CAUSAL_LM", **config))
    for name, value in model.named_parameters():
        if "lora_" in name:
            value.data = torch.randn(value.shape) * 0.3
    model.save_pretrained(str(out), save_embedding_layers=whole)
    file = out / "adapter_model.safetensors"
    save_file({n: t.to(dtype) for n, t in load_file(file).items()}, file, metadata={"format": "pt"})
    return out


def deltas(path: Path, out: Path) -> dict[str, torch.Tensor]:
    """What PEFT changes when it merges the adapter, in the modules' own layout."""
    plain = dict(base_model(path).named_parameters())
    merged = PeftModel.from_pretrained(base_model(path), str(out)).merge_and_unload()
    changed = {n: p.detach() - plain[n].detach() for n, p in merged.named_parameters()}
    return {n.removesuffix(".weight"): d for n, d in changed.items() if bool(d.any())}


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_change_is_the_one_peft_makes(
    pico_path: Pico, tmp_path: Path, kind: str, dtype: torch.dtype
) -> None:
    path = pico_path("llama")
    out = adapter(path, tmp_path / "a", dtype, **PLAIN[kind])
    patch = load_any(out)
    assert is_foreign(patch) and patch.base == str(path)
    wanted = deltas(path, out)
    assert set(patch.factors) == set(wanted)
    for module, factor in patch.factors.items():
        torch.testing.assert_close(factor.dense(), wanted[module], rtol=1e-5, atol=2e-6)
    # and as a patch of our own it is the same again
    again = load_any(patch.save(tmp_path / "b"))
    assert is_foreign(again)
    for module, factor in again.factors.items():
        assert torch.equal(factor.dense(), patch.factors[module].dense())
    for module, delta in deltas(path, tmp_path / "b").items():
        torch.testing.assert_close(delta, wanted[module], rtol=1e-5, atol=2e-6)


def test_transposed_weights_keep_their_orientation(pico_path: Pico, tmp_path: Path) -> None:
    path = pico_path("gpt2")
    out = adapter(path, tmp_path / "a", target_modules=["c_attn", "c_proj"], fan_in_fan_out=True)
    patch = load_any(out)
    assert patch.fan_in_fan_out
    for module, delta in deltas(path, out).items():
        torch.testing.assert_close(patch.factors[module].dense(), delta.T, rtol=1e-5, atol=2e-6)


def test_an_adapter_that_brings_whole_weights_is_refused(pico_path: Pico, tmp_path: Path) -> None:
    out = adapter(pico_path("llama"), tmp_path / "a", whole=True, target_modules=["lm_head"])
    with pytest.raises(PatchError, match="replaces a whole weight"):
        load_any(out)


def test_a_hubedit_patch_is_read_as_before(tmp_path: Path) -> None:
    path = recorded((2, 3)).save(tmp_path / "p")
    patch = load_any(path)
    assert not is_foreign(patch) and patch.record == Patch.load(path).record


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"lora_bias": True}, "lora_bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"target_modules": ["embed_tokens", "q_proj"]}, "embeddings"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights"),
        ({"init_lora_weights": "olora"}, "init_lora_weights"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"trainable_token_indices": [1, 2]}, "trainable_token_indices"),
    ],
    ids=str,
)
def test_what_is_more_than_lora_is_refused_by_name(
    pico_path: Pico, tmp_path: Path, config: dict[str, Any], named: str
) -> None:
    out = adapter(pico_path("llama"), tmp_path / "a", **{"target_modules": ["q_proj"], **config})
    with pytest.raises(PatchError, match=named) as raised:
        load_any(out)
    assert raised.value.hint and "\n" not in raised.value.message


Q = "model.layers.0.self_attn.q_proj"
KEY = f"base_model.model.{Q}.lora_A.weight"


def edit_config(path: Path, **changes: Any) -> None:
    file = path / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def edit_tensors(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(path / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, path / "adapter_model.safetensors")


def pickled(path: Path) -> None:
    (path / "adapter_model.safetensors").rename(path / "adapter_model.bin")


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "ia3": (lambda p: edit_config(p, peft_type="IA3"), "peft_type is 'IA3'"),
    "no target": (lambda p: edit_config(p, target_modules=["v_proj"]), "not among target_modules"),
    "excluded": (lambda p: edit_config(p, exclude_modules=[Q]), "not among target_modules"),
    "other layers": (lambda p: edit_config(p, layers_to_transform=[2]), "not among target_modules"),
    "null targets": (lambda p: edit_config(p, target_modules=None), "target_modules is neither"),
    "no targets": (lambda p: edit_config(p, target_modules=[]), "names no modules"),
    "bad regex": (lambda p: edit_config(p, target_modules="(q_proj"), "no regular expression"),
    "bad pattern": (lambda p: edit_config(p, rank_pattern={"(": 2}), "no regular expression"),
    "pattern kind": (lambda p: edit_config(p, alpha_pattern=[1]), "alpha_pattern is list"),
    "layers kind": (lambda p: edit_config(p, layers_to_transform="0"), "layers_to_transform"),
    "rank": (lambda p: edit_config(p, r=3), "configuration says r 3"),
    "rank kind": (lambda p: edit_config(p, r="8"), "not a positive integer"),
    "pattern rank": (lambda p: edit_config(p, rank_pattern={"q_proj": 0}), "not a positive integer"),
    "alpha": (lambda p: edit_config(p, lora_alpha=None), "not a number"),
    "huge alpha": (lambda p: edit_config(p, lora_alpha=10**400), "not a number"),
    "future": (lambda p: edit_config(p, use_magic=True), "use_magic is set"),
    "arrow": (lambda p: edit_config(p, arrow_config={"top_k": 1}), "Arrow"),
    "replication": (lambda p: edit_config(p, layer_replication=[[0, 2]]), "layer_replication"),
    "parameters": (lambda p: edit_config(p, target_parameters=["x"]), "target_parameters"),
    "invocation": (lambda p: edit_config(p, alora_invocation_tokens=[1]), "alora_invocation_tokens"),
    "init kind": (lambda p: edit_config(p, init_lora_weights=["a"]), "init_lora_weights"),
    "pickle": (pickled, "pickled"),
    "no tensors": (lambda p: (p / "adapter_model.safetensors").unlink(), "is missing"),
    "no config": (lambda p: (p / "adapter_config.json").unlink(), "is missing"),
    "cut": (lambda p: (p / "adapter_model.safetensors").write_bytes(b"x" * 99), "cannot be read"),
    "empty": (lambda p: edit_tensors(p, lambda t: t.clear()), "no LoRA tensors"),
    "half": (lambda p: edit_tensors(p, lambda t: t.pop(KEY)), "no lora_A"),
    "integers": (lambda p: edit_tensors(p, lambda t: t.update({KEY: t[KEY].int()})), "is I32"),
    "nan": (lambda p: edit_tensors(p, lambda t: t[KEY].fill_(float("nan"))), "NaN or infinity"),
    "flat": (lambda p: edit_tensors(p, lambda t: t.update({KEY: t[KEY].flatten()})), "not that of a matrix"),
    "stranger": (lambda p: edit_tensors(p, lambda t: t.update({"x.weight": t[KEY] * 1})), "no LoRA tensor"),
    "named": (
        lambda p: edit_tensors(p, lambda t: t.update({KEY.replace("_A", "_A.default"): t.pop(KEY)})),
        "under the adapter's name",
    ),
    "magnitude": (
        lambda p: edit_tensors(p, lambda t: t.update({"x.lora_magnitude_vector": torch.ones(2)})),
        "belongs to DoRA",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_adapter_is_refused_in_one_line(pico_path: Pico, tmp_path: Path, damage: str) -> None:
    path = adapter(pico_path("llama"), tmp_path / "a", target_modules=["q_proj"])
    spoil, message = DAMAGE[damage]
    spoil(path)
    with pytest.raises(PatchError, match=message) as raised:
        load_any(path)
    assert raised.value.hint and "\n" not in raised.value.message


def test_what_is_no_adapter_is_refused(pico_path: Pico, tmp_path: Path) -> None:
    with pytest.raises(PatchError, match="no patch folder"):
        load_any(tmp_path / "nothing")
    with pytest.raises(PatchError, match="is a model, not a patch"):
        load_any(pico_path("llama"))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["q_proj", "(", "LORA", "layers", 10**400])
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KEYS = [*sorted(field.name for field in fields(LoraConfig)), "use_magic"]


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(KEYS), JSON, min_size=1, max_size=3))
@example({"r": 10**400})
def test_a_configuration_of_anything_is_read_or_refused(
    plain_adapter: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    config = json.loads((plain_adapter / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, **changes}))
    weights = (plain_adapter / "adapter_model.safetensors").read_bytes()
    (tmp_path / "adapter_model.safetensors").write_bytes(weights)
    try:
        patch = load_any(tmp_path)
    except HubEditError:
        return
    assert patch.full_record()


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 3000), st.binary(min_size=1, max_size=4), st.booleans())
def test_damaged_bytes_are_read_or_refused(
    plain_adapter: Path, tmp_path: Path, at: int, noise: bytes, cut: bool
) -> None:
    shutil.copy(plain_adapter / "adapter_config.json", tmp_path / "adapter_config.json")
    data = (plain_adapter / "adapter_model.safetensors").read_bytes()
    at %= len(data)
    data = data[:at] if cut else data[:at] + noise + data[at + len(noise) :]
    (tmp_path / "adapter_model.safetensors").write_bytes(data)
    with suppress(HubEditError):
        load_any(tmp_path)


@pytest.fixture(scope="module")
def plain_adapter(pico_path: Pico, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return adapter(pico_path("llama"), tmp_path_factory.mktemp("adapter") / "a", target_modules=["q_proj"])
