"""Stored tensors as torch tensors, for what decomposes them; merging and reverting need no torch."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from hubedit.errors import CheckpointError
from hubedit.weights.blocks import read_bytes
from hubedit.weights.header import TensorEntry

TORCH: Mapping[str, torch.dtype] = MappingProxyType(
    {
        "BOOL": torch.bool,
        "U8": torch.uint8,
        "I8": torch.int8,
        "U16": torch.uint16,
        "I16": torch.int16,
        "U32": torch.uint32,
        "I32": torch.int32,
        "U64": torch.uint64,
        "I64": torch.int64,
        "F16": torch.float16,
        "BF16": torch.bfloat16,
        "F32": torch.float32,
        "F64": torch.float64,
        "C64": torch.complex64,
        "F8_E4M3": torch.float8_e4m3fn,
        "F8_E5M2": torch.float8_e5m2,
    }
)
"""torch's dtype for a dtype of safetensors."""


def read_tensor(entry: TensorEntry) -> Tensor:
    """A tensor in its stored dtype and shape. Raises CheckpointError."""
    dtype = TORCH.get(entry.dtype)
    if dtype is None:
        raise CheckpointError(f"tensor {entry.name} has dtype {entry.dtype}, which torch cannot hold")
    if not entry.nbytes:
        return torch.empty(entry.shape, dtype=dtype)
    return torch.frombuffer(read_bytes(entry), dtype=dtype).view(entry.shape)
