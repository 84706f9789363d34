"""What causal tracing found, as plain numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from hubedit.config import TraceConfig, from_dict, to_dict
from hubedit.errors import HubEditError

KINDS = ("attention", "mlp")

CATEGORIES = (
    "first subject token",
    "middle subject tokens",
    "last subject token",
    "first token after",
    "further tokens",
    "last token",
)
"""Rows of the heat map (Meng et al. 2022, figure 1). A subject of one token is its last token."""

Curve = tuple[float, ...]
Map = tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True)
class TraceResult:
    """Average indirect effects of single modules.

    `ie_prob[kind][l]`: probability of the answer's first token that comes back when the output of
    layer l's module (with a window: of the layers around l) at the subject's last token is the clean
    one, restored run minus corrupted run. `ie_logit`: the same for the logit difference, the logit of
    the answer's first token minus that of the token other than it that the corrupted run ranks first.
    `se_*`: standard errors over facts. `heat_*[kind][category][l]`: the same effects by kind of token,
    None where no fact has such a token; empty unless all tokens were traced.
    `prob_clean`, `prob_corrupted` (the low score), `logit_clean`, `logit_corrupted`: averages over
    facts; their differences are the total effects. `noise`: standard deviation of the noise as added.
    `facts` given, `checked` for being known until there were enough, `known`, `traced`.
    """

    layers: tuple[int, ...]
    ie_prob: Mapping[str, Curve]
    ie_logit: Mapping[str, Curve]
    se_prob: Mapping[str, Curve]
    se_logit: Mapping[str, Curve]
    heat_prob: Mapping[str, Map]
    heat_logit: Mapping[str, Map]
    prob_clean: float
    prob_corrupted: float
    logit_clean: float
    logit_corrupted: float
    noise: float
    facts: int
    checked: int
    known: int
    traced: int
    model: str
    commit: str
    dtype: str
    config: TraceConfig

    @property
    def total_effect(self) -> float:
        """Probability that the corruption takes away."""
        return self.prob_clean - self.prob_corrupted

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data; `from_json` gives back an equal result."""
        data = {f.name: _plain(getattr(self, f.name)) for f in fields(self) if f.name != "config"}
        return {**data, "categories": list(CATEGORIES), "config": to_dict(self.config)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TraceResult:
        """Reads what `to_json` wrote. Raises HubEditError when a field is missing."""
        names = [f.name for f in fields(cls)]
        missing = [name for name in names if name not in data]
        if missing:
            raise HubEditError(f"this is not a trace: it lacks {missing[0]!r}", "run `hubedit trace` again")
        values = {name: _frozen(data[name]) for name in names if name != "config"}
        return cls(**values, config=from_dict(TraceConfig, data["config"]))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, tuple) else value


def _frozen(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _frozen(v) for k, v in value.items()}
    return tuple(_frozen(v) for v in value) if isinstance(value, list) else value
