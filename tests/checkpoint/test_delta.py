"""The sum without torch has torch's bits, and merging imports no model library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from hubedit.checkpoint import delta
from hubedit.checkpoint.delta import Change, Realised
from hubedit.errors import CheckpointError
from hubedit.patch.pair import Pair
from hubedit.weights.header import read_header
from tests.checkpoint.tiny import patch, tiny

DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


def written(folder: Path, weight: torch.Tensor, pair: Pair, **more: bool) -> tuple[torch.Tensor, Realised]:
    """The merged tensor as torch reads it."""
    save_file({"w": weight}, folder / "w.safetensors")
    entry = read_header(folder / "w.safetensors").tensors["w"]
    data = bytearray()
    found = Change(entry, (pair,), more.get("transposed", False)).write(entry.dtype, data.extend)
    return torch.frombuffer(data, dtype=weight.dtype).view(weight.shape), found


def same_bits(one: torch.Tensor, two: torch.Tensor) -> bool:
    return torch.equal(one.contiguous().view(torch.uint8), two.contiguous().view(torch.uint8))


@given(
    st.sampled_from(list(DTYPES)),
    st.integers(0, 99),
    st.sampled_from([1e-38, 1e-7, 1e-3, 1.0, 100.0]),
    st.booleans(),
    st.sampled_from([1, 40, 1 << 18]),
)
def test_a_change_of_rank_one_has_the_bits_that_torch_gives(
    tmp_path_factory: pytest.TempPathFactory,
    dtype: str,
    seed: int,
    scale: float,
    transposed: bool,
    block: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    shape = (31, 17) if transposed else (17, 31)
    weight = (scale * torch.randn(shape, generator=generator)).to(DTYPES[dtype])  # 1e-38 gives subnormals
    b, a = scale * torch.randn(17, 1, generator=generator), torch.randn(1, 31, generator=generator)
    change = (b @ a).T if transposed else b @ a
    expected = (weight.float() + change).to(DTYPES[dtype])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(delta, "ELEMENTS", block)
        folder = tmp_path_factory.mktemp("w")
        found, _ = written(folder, weight, Pair(b.numpy(), a.numpy()), transposed=transposed)
    assert same_bits(found, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_change_of_any_rank_is_torchs_within_one_rounding(tmp_path: Path, dtype: str) -> None:
    weight = torch.randn(64, 300).to(DTYPES[dtype])
    b, a = 0.1 * torch.randn(64, 40), torch.randn(40, 300)
    expected = (weight.float() + b @ a).to(DTYPES[dtype])
    found, told = written(tmp_path, weight, Pair(b.numpy(), a.numpy()))
    # sums of 40 products in another order differ in the last bit of float32, which rounding mostly hides
    assert float((found != expected).float().mean()) < (0.01 if dtype != "F32" else 0.9)
    unit = torch.finfo(DTYPES[dtype]).eps
    assert bool(((found.double() - expected.double()).abs() <= unit * expected.abs().double() + 1e-5).all())
    assert told.norm == pytest.approx(float((b @ a).norm()), rel=1e-5)


def test_the_bases_bytes_are_kept_by_the_same_read(tmp_path: Path) -> None:
    weight = torch.randn(6, 5).bfloat16()
    save_file({"w": weight}, tmp_path / "w.safetensors")
    entry = read_header(tmp_path / "w.safetensors").tensors["w"]
    kept = tmp_path / "kept"
    kept.write_bytes(b"\0" * (3 + entry.nbytes + 2))
    pair = Pair(np.ones((6, 1), np.float32), np.ones((1, 5), np.float32))
    Change(entry, (pair,), False, (kept, 3)).write("BF16", lambda _: None)
    whole = (tmp_path / "w.safetensors").read_bytes()[entry.start : entry.end]
    assert kept.read_bytes() == b"\0" * 3 + whole + b"\0" * 2


@pytest.mark.parametrize("huge", [1e39, 3e38])
def test_what_becomes_infinite_is_refused(tmp_path: Path, huge: float) -> None:
    with np.errstate(over="ignore"):
        b = np.full((3, 2), 1e20, np.float32)
        a = np.full((2, 4), huge / 1e20, np.float32)
    with pytest.raises(CheckpointError, match="becomes infinite"):
        written(tmp_path, torch.full((3, 4), 1e38), Pair(b, a))


_RUN = """
import sys
from hubedit.cli.app import run
base, patch, out = sys.argv[1:]
for line in (
    ["merge", patch, "--model", base, "--out", out],
    ["inspect", out],
    ["inspect", patch, "--model", base],
    ["log", out],
    ["merge", patch, "--model", base, "--out", out + "2", "--dtype", "float32", "--max-shard-size", "300"],
    ["revert", out, "--yes"],
):
    assert run(line) == 0, line
    heavy = {"torch", "transformers", "peft", "tokenizers", "matplotlib"} & set(sys.modules)
    assert not heavy, (line, heavy)
"""


def test_merging_inspecting_and_reverting_import_no_torch(tmp_path: Path) -> None:
    base = tiny(tmp_path / "m")
    one = patch(base, fact="Lyon").save(tmp_path / "p")
    words = [sys.executable, "-c", _RUN, str(base), str(one), str(tmp_path / "out")]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
