"""What identifies a stored weight: the hashes of its bytes, in one pass and a few megabytes of memory."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from hubedit.checkpoint.delta import all_finite, flat, raw
from hubedit.checkpoint.header import TensorEntry

# the narrower types that a patch's record may be about, in the order of `hubedit.patch.tensor_sha256`
_NARROW = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True)
class Digest:
    """`stored`: sha256 of the bytes as they are; `exact`: `hubedit.patch.tensor_sha256` of the values;
    `rounded`: type -> sha256 of the values rounded to it; `finite`: no NaN or infinity among them.
    """

    stored: str
    exact: str
    rounded: Mapping[str, str]
    finite: bool

    @property
    def values(self) -> dict[str, str]:
        """`exact` and `rounded` in one mapping; empty where both say no more than `stored`."""
        return {"exact": self.exact, **self.rounded} if self.rounded else {}


def digest(entry: TensorEntry) -> Digest:
    """Reads a floating tensor once. Raises CheckpointError."""
    stored = hashlib.sha256()
    if entry.dtype == "BF16":
        finite = True
        for values in flat(entry):
            stored.update(raw(values))
            finite &= all_finite(values)
        return Digest(stored.hexdigest(), stored.hexdigest(), {}, finite)
    totals = {name: hashlib.sha256() for name in _NARROW}
    fits, finite = dict.fromkeys(_NARROW, True), True
    for values in flat(entry):
        stored.update(raw(values))
        finite &= all_finite(values)
        for name, dtype in _NARROW.items():
            narrow = values.to(dtype)
            totals[name].update(raw(narrow))
            fits[name] &= torch.equal(narrow.to(values.dtype), values)
    rounded = {name: total.hexdigest() for name, total in totals.items()}
    exact = next((rounded[name] for name in _NARROW if fits[name]), stored.hexdigest())
    return Digest(stored.hexdigest(), exact, rounded, finite)
