"""Differences of checkpoints and of patches, against the dense ones."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from hubedit.checkpoint.diff import Changed, Diff, diff_checkpoints, diff_patches
from hubedit.checkpoint.read import Checkpoint
from hubedit.errors import CheckpointError, ConfigError
from hubedit.linalg import LowRank
from tests.patch.parts import DOWN, OUT
from tests.patch.recorded import fact, recorded

Tensors = dict[str, torch.Tensor]


def checkpoint(folder: Path, tensors: Tensors) -> Checkpoint:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    save_file(tensors, folder / "model.safetensors")
    return Checkpoint.open(folder)


def by_name(found: Diff) -> dict[str, Changed]:
    return {c.name: c for c in found.changed}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(96, 64), (600, 640)])
def test_sizes_and_ranks_are_those_of_the_edit(
    tmp_path: Path, dtype: torch.dtype, shape: tuple[int, int]
) -> None:
    weight = (torch.randn(shape) * 0.02).to(dtype)
    edit = torch.randn(shape[0], 3) @ torch.randn(3, shape[1]) * 0.01
    edited = (weight.float() + edit).to(dtype)
    plain = {"w": weight, "same": torch.ones(3), "norm": torch.ones(8), "only": torch.ones(1)}
    a = checkpoint(tmp_path / "a", plain)
    b = checkpoint(tmp_path / "b", {"w": edited, "same": torch.ones(3), "norm": torch.ones(8) * 2})
    found = diff_checkpoints(a, b)
    assert (found.only_a, found.only_b, found.identical, found.same) == (("only",), (), 1, False)
    w, norm = by_name(found)["w"], by_name(found)["norm"]
    delta = edited.double() - weight.double()
    assert w.norm == pytest.approx(float(delta.norm()), rel=1e-5)
    assert w.relative == pytest.approx(float(delta.norm() / weight.double().norm()), rel=1e-5)
    assert w.largest == pytest.approx(float(delta.abs().max()), rel=1e-5)
    assert (w.rank, w.capped) == (3, False)
    assert (norm.rank, norm.largest) == (None, 1.0)
    assert diff_checkpoints(a, a).same
    assert by_name(diff_checkpoints(a, b, most_rank=2))["w"].capped
    assert by_name(diff_checkpoints(a, b, most_rank=0))["w"].rank is None


def test_other_shapes_dtypes_and_kinds(tmp_path: Path) -> None:
    base = torch.randn(4, 6).bfloat16()
    plain: Tensors = {
        "shape": torch.ones(2, 3),
        "dtype": base,
        "int": torch.arange(6),
        "bool": torch.tensor([True, False]),
        "scalar": torch.tensor(1.0),
        "zero": torch.tensor([[0.0]]),
        "empty": torch.ones(0, 4),
        "cube": torch.zeros(2, 3, 4),
        "byte": torch.ones(3).to(torch.float8_e4m3fn),
    }
    other: Tensors = {
        "shape": torch.ones(3, 2),
        "dtype": base.float(),
        "int": torch.arange(6) * 2**40,
        "bool": torch.tensor([True, True]),
        "scalar": torch.tensor(3.0),
        "zero": torch.tensor([[-0.0]]),
        "empty": torch.ones(0, 4),
        "cube": torch.ones(2, 3, 4),
        "byte": torch.zeros(3).to(torch.float8_e4m3fn),
    }
    a, b = checkpoint(tmp_path / "a", plain), checkpoint(tmp_path / "b", other)
    changed = by_name(diff_checkpoints(a, b))
    assert set(changed) == set(plain) - {"empty"}
    assert changed["shape"].norm is None and changed["shape"].shapes == ((2, 3), (3, 2))
    assert (changed["dtype"].norm, changed["dtype"].dtypes) == (0, ("BF16", "F32"))
    assert changed["int"].largest == 5 * 2**40 - 5
    assert (changed["bool"].largest, changed["scalar"].norm, changed["scalar"].relative) == (1, 2, 2)
    assert changed["zero"].rank == 0
    assert changed["cube"].norm == pytest.approx(24**0.5)
    assert changed["byte"].largest == 1


def test_shared_files_are_not_read_and_nan_is_an_error(tmp_path: Path) -> None:
    a = checkpoint(tmp_path / "a", {"w": torch.full((4, 4), float("nan"))})
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "config.json").write_text("{}")
    os.link(tmp_path / "a" / "model.safetensors", tmp_path / "b" / "model.safetensors")
    b = Checkpoint.open(tmp_path / "b")
    assert diff_checkpoints(a, b).same, "who reads them meets NaN"
    c = checkpoint(tmp_path / "c", {"w": torch.ones(4, 4)})
    with pytest.raises(CheckpointError, match="NaN"):
        diff_checkpoints(a, c)
    with pytest.raises(ConfigError):
        diff_checkpoints(a, b, most_rank=513)


def test_a_file_cut_while_it_is_compared_is_one_line(tmp_path: Path) -> None:
    a, b = (checkpoint(tmp_path / name, {"w": torch.ones(64, 64)}) for name in "ab")
    os.truncate(tmp_path / "b" / "model.safetensors", 500)
    with pytest.raises(CheckpointError, match="cut short"):
        diff_checkpoints(a, b)


@given(st.integers(0, 99), st.integers(1, 4), st.integers(0, 3))
def test_patches_differ_as_their_products_do(seed: int, rank: int, more: int) -> None:
    a, b = recorded((rank, 2), seed), recorded((rank + more, 2), seed + 1)
    changed = by_name(diff_patches(a, b))
    for module in (DOWN, OUT):
        delta = b.factors[module].dense().double() - a.factors[module].dense().double()
        assert changed[module].norm == pytest.approx(float(delta.norm()), rel=1e-4)
        assert changed[module].largest == pytest.approx(float(delta.abs().max()), rel=1e-4)
        assert changed[module].rank == int(torch.linalg.matrix_rank(delta, rtol=1e-5))


def test_other_factors_of_the_same_change_are_identical() -> None:
    a = recorded((3, 3), facts=[fact("France", "Lyon")])
    turn = torch.linalg.qr(torch.randn(3, 3))[0]
    factors = {m: LowRank(f.B @ turn, turn.T @ f.A) for m, f in a.factors.items()}
    same = diff_patches(a, replace(a, factors=factors))
    assert same.same and same.identical == 2
    other = diff_patches(a, recorded((3, 0), facts=[fact("France", "Nice")]))
    assert other.only_a == (OUT,) and other.facts["B"] == ("The capital of France is Nice",)


def test_two_models_of_one_family(pico_path: Callable[..., Path], tmp_path: Path) -> None:
    path = pico_path("llama")
    tensors = load_file(path / "model.safetensors")
    name = "model.layers.1.self_attn.q_proj.weight"
    tensors[name] = tensors[name] + torch.outer(torch.randn(32), torch.randn(32))
    found = diff_checkpoints(Checkpoint.open(path), checkpoint(tmp_path / "b", tensors))
    assert [(c.name, c.rank) for c in found.changed] == [(name, 1)]
