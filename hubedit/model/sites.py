"""A site: one linear map that writes into the residual stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SiteKind = Literal["attention", "mlp"]


@dataclass(frozen=True, order=True)
class Site:
    """`kind` "attention" is the layer's o_proj, "mlp" its down_proj; `layer` is 0-based."""

    layer: int
    kind: SiteKind

    def __str__(self) -> str:
        return f"{self.layer}.{self.kind}"
