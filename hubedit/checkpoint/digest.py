"""What identifies a stored weight: the hashes of its bytes, in one pass and a few megabytes of memory."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hubedit.checkpoint.delta import ELEMENTS, values_of
from hubedit.floats import NAMES, STORED, all_finite, narrowed, raw, widened
from hubedit.weights.blocks import blocks
from hubedit.weights.header import TensorEntry


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

    def known(self, dtype: str) -> set[str | None]:
        """What a patch may say of the weight when it was made on a model that was loaded as `dtype`."""
        return {self.exact, self.rounded.get(dtype)}


def digest(entry: TensorEntry) -> Digest:
    """Reads a floating tensor once. Raises CheckpointError."""
    stored = hashlib.sha256()
    finite = True
    if entry.dtype == "BF16":
        for piece in blocks(entry):
            stored.update(piece)
            finite &= all_finite(np.frombuffer(piece, STORED["BF16"]), "BF16")
        return Digest(stored.hexdigest(), stored.hexdigest(), {}, finite)
    totals = {name: hashlib.sha256() for name in NAMES}
    exact = dict.fromkeys(NAMES, True)
    for piece in blocks(entry, ELEMENTS * STORED[entry.dtype].itemsize):
        stored.update(piece)
        values = values_of(piece, entry)
        finite &= bool(np.isfinite(values).all())
        for name, kind in NAMES.items():
            narrow = narrowed(values, kind)
            totals[name].update(raw(narrow))
            exact[name] &= bool(np.array_equal(widened(narrow, kind), values))
    rounded = {name: total.hexdigest() for name, total in totals.items()}
    narrowest = next((rounded[name] for name in NAMES if exact[name]), stored.hexdigest())
    return Digest(stored.hexdigest(), narrowest, rounded, finite)
