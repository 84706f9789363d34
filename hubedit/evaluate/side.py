"""One of the models that are compared: a loaded model, with or without a patch in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from hubedit.linalg import LowRank
from hubedit.model.editable import EditableModel
from hubedit.model.forms import chat_key
from hubedit.model.hooks import applied
from hubedit.model.sites import Site


@dataclass(frozen=True, eq=False)
class Side:
    """`factors`: the patch, on any device (empty: the model itself); `patch`: what identifies it in
    cache keys, the sha256 of its tensors. Raises ValueError for factors that nothing identifies."""

    em: EditableModel
    factors: Mapping[Site, LowRank] = field(default_factory=dict)
    patch: str = ""

    def __post_init__(self) -> None:
        if bool(self.factors) != bool(self.patch):
            raise ValueError("a side with factors needs the patch's hash, and one without must have none")
        moved = {site: factor.to(self.em.device) for site, factor in self.factors.items()}
        object.__setattr__(self, "factors", moved)

    @property
    def key(self) -> dict[str, Any]:
        """What a measurement of this side depends on, apart from what is measured."""
        return {
            "model": self.em.identity,
            "dtype": str(self.em.dtype),
            "device": self.em.device.type,
            "patch": self.patch,
            **chat_key(self.em),
        }

    @contextmanager
    def active(self, factors: Mapping[Site, LowRank] | None = None) -> Iterator[EditableModel]:
        """The model as this side has it; `factors` stand in for the side's own."""
        chosen = self.factors if factors is None else factors
        if not chosen:
            yield self.em
            return
        with applied(self.em, chosen):
            yield self.em
