"""Adapters that do less than they say are told, one line each."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hubedit.errors import PatchError
from hubedit.linalg import LowRank
from hubedit.patch import Patch
from hubedit.patch.doubts import doubts, too_wide
from hubedit.patch.foreign import load_any
from tests.patch.parts import DOWN, OUT, made

Q = "model.layers.0.self_attn.q_proj"


def adapter(folder: Path, modules: tuple[str, ...] = (Q,), scale: float = 1.0, **config: Any) -> Path:
    """The files of a PEFT adapter of rank 2."""
    folder.mkdir()
    tensors = {}
    for module in modules:
        tensors[f"base_model.model.{module}.lora_A.weight"] = torch.ones(2, 4)
        tensors[f"base_model.model.{module}.lora_B.weight"] = scale * torch.ones(4, 2)
    save_file(tensors, folder / "adapter_model.safetensors")
    whole = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q_proj"], **config}
    (folder / "adapter_config.json").write_text(json.dumps(whole))
    return folder


def renamed(folder: Path, change: Callable[[str], str]) -> Path:
    file = folder / "adapter_model.safetensors"
    save_file({change(name): tensor for name, tensor in load_file(file).items()}, file)
    return folder


def test_an_adapter_that_is_what_it_says_has_none(tmp_path: Path) -> None:
    config: dict[str, Any] = {"rank_pattern": {"q_proj": 2}, "layers_to_transform": [0]}
    assert doubts(load_any(adapter(tmp_path / "a", **config))) == ()
    assert doubts(made()) == ()


def test_a_change_of_nothing(tmp_path: Path) -> None:
    (line,) = doubts(load_any(adapter(tmp_path / "a", scale=0.0)))
    assert "all its factors are zero" in line
    zero = Patch({DOWN: LowRank(torch.ones(6, 1), torch.zeros(1, 7))}, {}, "b")
    assert doubts(zero) == (line,)
    half = {DOWN: zero.factors[DOWN], OUT: LowRank(torch.ones(6, 1), torch.ones(1, 7))}
    assert doubts(Patch(half, {}, "b")) == ()


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"target_modules": ["q_proj", "v_proj"]}, "target_modules names 'v_proj'"),
        ({"target_modules": [Q, "model.layers.9.mlp.up_proj"]}, "'model.layers.9.mlp.up_proj'"),
        ({"rank_pattern": {"k_proj": 4}}, "rank_pattern names 'k_proj'"),
        ({"alpha_pattern": {r"layers\.[1-3]\.self_attn\.q_proj": 4}}, "alpha_pattern names 'layers"),
        ({"layers_to_transform": [0, 5]}, "layer 5"),
    ],
    ids=str,
)
def test_names_that_no_tensor_belongs_to(tmp_path: Path, config: dict[str, Any], named: str) -> None:
    patch = load_any(adapter(tmp_path / "a", **config))
    (line,) = doubts(patch)
    assert named in line
    # and they are still known when the adapter was saved as a patch
    assert doubts(load_any(patch.save(tmp_path / "b"))) == (line,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda n: n.replace(".weight", ".default.weight"), "under the adapter's name, 'default'"),
        (lambda n: n.replace(".weight", ".my-run.weight"), "under the adapter's name, 'my-run'"),
        (lambda n: n.removeprefix("base_model.model."), "does not begin with base_model.model."),
        (lambda n: n.replace("base_model.model.", "model."), "does not begin with base_model.model."),
    ],
)
def test_tensors_where_loaders_look_for_none(
    tmp_path: Path, change: Callable[[str], str], message: str
) -> None:
    with pytest.raises(PatchError, match=message) as raised:
        load_any(renamed(adapter(tmp_path / "a"), change))
    assert "save_pretrained" in raised.value.hint


@pytest.mark.parametrize("half", ["lora_A", "lora_B"])
def test_empty_tensors_are_told_as_what_they_are(tmp_path: Path, half: str) -> None:
    folder = adapter(tmp_path / "a")
    file = folder / "adapter_model.safetensors"
    save_file({n: torch.empty(0) if half in n else t for n, t in load_file(file).items()}, file)
    with pytest.raises(PatchError, match="is empty") as raised:
        load_any(folder)
    assert "ZeRO-3" in raised.value.hint


@pytest.mark.parametrize("config", [{"r": 3}, {"rank_pattern": {"q_proj": 1}}, {"rank_pattern": {Q: 8}}])
def test_a_rank_that_the_tensors_do_not_have(tmp_path: Path, config: dict[str, Any]) -> None:
    with pytest.raises(PatchError, match=f"{Q} has lora_A .* but the configuration says r"):
        load_any(adapter(tmp_path / "a", **config))


@pytest.mark.parametrize(("rank", "wide"), [(8, False), (512, False), (513, True), (700, True)])
def test_a_rank_that_vllm_refuses(rank: int, wide: bool) -> None:
    patch = Patch({DOWN: LowRank(torch.ones(6, rank), torch.ones(rank, 7))}, {}, "b")
    assert too_wide(patch) == (
        f"the rank is {rank}; vLLM takes at most 512 (--rank 512 truncates)" if wide else ""
    )
