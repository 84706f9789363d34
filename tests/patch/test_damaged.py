"""Damaged patches are refused in one line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hubedit.errors import PatchError
from hubedit.patch import Patch
from tests.patch.parts import DOWN, OUT, made


def edit_config(path: Path, **changes: Any) -> None:
    file = path / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def edit_tensors(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(path / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, path / "adapter_model.safetensors")


KEY = f"base_model.model.{DOWN}.lora_A.weight"
DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no record": (lambda p: (p / "hubedit.json").unlink(), "hubedit.json is missing"),
    "no config": (lambda p: (p / "adapter_config.json").unlink(), "adapter_config.json is missing"),
    "no tensors": (lambda p: (p / "adapter_model.safetensors").unlink(), "safetensors is missing"),
    "no json": (lambda p: (p / "hubedit.json").write_text("{"), "is not JSON"),
    "no text": (lambda p: (p / "hubedit.json").write_bytes(b"\xff\xfe"), "is not JSON"),
    "no object": (lambda p: (p / "hubedit.json").write_text("[]"), "JSON object"),
    "older": (lambda p: (p / "hubedit.json").write_text("{}"), "schema_version is None"),
    "newer": (lambda p: (p / "hubedit.json").write_text('{"schema_version": 99}'), "schema_version is 99"),
    "no sites": (lambda p: (p / "hubedit.json").write_text('{"schema_version": 1}'), "does not list"),
    "kind": (lambda p: edit_config(p, peft_type="IA3"), "peft_type is 'IA3'"),
    "scaling": (lambda p: edit_config(p, lora_alpha=3), "scaling 1"),
    "rank": (lambda p: edit_config(p, r=16, lora_alpha=16), "but r is 16"),
    "no rank": (lambda p: edit_config(p, r=0), "r is 0"),
    "pattern": (lambda p: edit_config(p, rank_pattern={DOWN: 4}), "rank_pattern is set"),
    "dora": (lambda p: edit_config(p, use_dora=True), "use_dora is set"),
    "regex": (lambda p: edit_config(p, target_modules="all-linear"), "target_modules is not a list"),
    "no base": (lambda p: edit_config(p, base_model_name_or_path=None), "base_model_name_or_path is missing"),
    "lost module": (lambda p: edit_config(p, target_modules=[OUT]), f"{DOWN} has tensors but is not in"),
    "extra module": (lambda p: edit_config(p, target_modules=[OUT, DOWN, "x"]), "x has no lora_A"),
    "no partner": (lambda p: edit_tensors(p, lambda t: t.pop(KEY)), f"{DOWN} has no lora_A"),
    "prefix": (
        lambda p: edit_tensors(p, lambda t: t.update({"m.lora_A.weight": t.pop(KEY)})),
        "no LoRA tensor",
    ),
    "shape": (lambda p: edit_tensors(p, lambda t: t.update({KEY: torch.zeros(2, 7)})), r"shape \(2, 7\)"),
    "nan": (lambda p: edit_tensors(p, lambda t: t[KEY].fill_(float("nan"))), "NaN or infinity"),
    "half": (lambda p: edit_tensors(p, lambda t: t.update({KEY: t[KEY].bfloat16()})), "is BF16, not F32"),
    "padding": (lambda p: edit_tensors(p, lambda t: t[KEY].fill_(1.0)), "tensors have more"),
    "cut": (lambda p: os.truncate(p / "adapter_model.safetensors", 300), "cannot be read"),
    "noise": (lambda p: (p / "adapter_model.safetensors").write_bytes(b"x" * 99), "cannot be read"),
    "facts": (lambda p: (p / "facts.jsonl").write_text('{"prompt": 1}\n'), "facts.jsonl:1"),
    "facts json": (lambda p: (p / "facts.jsonl").write_text("{\n"), "facts.jsonl:1"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_patch_is_refused_in_one_line(tmp_path: Path, damage: str) -> None:
    path = made().save(tmp_path / "p")
    spoil, message = DAMAGE[damage]
    spoil(path)
    with pytest.raises(PatchError, match=message) as raised:
        Patch.load(path)
    assert raised.value.hint
    assert "\n" not in raised.value.message and str(path) in raised.value.message


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PatchError, match="is no patch folder"):
        Patch.load(tmp_path / "nothing")
