"""The hashes in one pass are those of the patch's own function."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from hubedit.checkpoint import digest as digests
from hubedit.checkpoint.digest import digest
from hubedit.patch import tensor_sha256
from hubedit.weights.blocks import tensor_digest
from hubedit.weights.header import read_header

DTYPES = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
    "float64": torch.float64,
}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(list(DTYPES)), st.sampled_from(list(DTYPES)), st.sampled_from([7, 1 << 19]), st.booleans()
)
def test_the_hashes_are_those_of_the_values(
    tmp_path: Path, values: str, stored: str, block: int, finite: bool
) -> None:
    weight = torch.randn(6, 10).to(DTYPES[values]).to(DTYPES[stored])
    if not finite:
        weight[3, 3] = float("inf")
    save_file({"w": weight}, tmp_path / "x.safetensors")
    entry = read_header(tmp_path / "x.safetensors").tensors["w"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(digests, "ELEMENTS", block)
        found = digest(entry)
    assert found.stored == tensor_digest(entry)
    assert found.exact == tensor_sha256(weight)
    assert found.finite == finite
    for name, told in found.rounded.items():
        loaded = weight.to(DTYPES[name])
        narrower = [DTYPES[n] for n in ("bfloat16", "float16", "float32") if n != name]
        if not any(torch.equal(loaded.to(dtype).to(loaded.dtype), loaded) for dtype in narrower):
            assert told == tensor_sha256(loaded)
