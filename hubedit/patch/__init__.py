"""A patch: low-rank factors with their provenance, on disk a PEFT LoRA adapter. Needs no model loaded."""

from hubedit.patch.base import base_record, tensor_sha256
from hubedit.patch.value import Patch

__all__ = ["Patch", "base_record", "tensor_sha256"]
