"""What one line of the results file says, as plain JSON data."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

from torch import Tensor

from hubedit.bench.cells import Cell
from hubedit.bench.numbers import settings
from hubedit.edit.compute import Edit
from hubedit.edit.locate.alpha import alphas
from hubedit.environment import base_name, device_name, peak_memory, versions
from hubedit.model.editable import EditableModel
from hubedit.report.measures import measures

HUNDRED = 100
"""Facts of each end of a sequence, at most half of it, whose success is shown apart."""


def flat(data: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """A report's numbers by "group/key": {"before", "in_context", "after", "low", "high", "error", "n"},
    without what was not measured. Shares are 0..1."""
    found = {}
    for one in measures(data):
        entry: dict[str, float | None] = {"before": one.before.value if one.before else None, "n": one.n}
        entry["in_context"] = one.in_context.value if one.in_context else None
        if one.after is not None:
            after = one.after
            entry |= {"after": after.value, "low": after.low, "high": after.high, "error": after.error}
        found[f"{one.group}/{one.key}"] = {name: x for name, x in entry.items() if x is not None}
    return found


def first_and_last(data: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Success of the oldest and the newest hundred facts of a report, as `flat` has it; of fewer than two
    hundred that of the older and the newer half."""
    held = [float(fact["success"]) for fact in data.get("facts", ())]
    count = min(HUNDRED, -(-len(held) // 2))
    parts = {"oldest": held[:count], "newest": held[len(held) - count :]}
    return {f"sequence/{k}": {"after": sum(v) / len(v), "n": float(len(v))} for k, v in parts.items() if v}


def edit_summary(edit: Edit) -> dict[str, Any]:
    """Where and how strongly the edit writes. `alpha_mean`: attention's share as it was used;
    `alpha_traced`: as the trace has it, the same at every layer; `target_loss`,
    `target_nll`: means over the facts at the residuals that the edit aims at."""
    summary: dict[str, Any] = {"layers": list(edit.layers)}
    if edit.alpha:
        shares = {str(layer): edit.alpha[layer] for layer in edit.layers}
        summary |= {"alpha": shares, "alpha_mean": sum(shares.values()) / len(shares)}
    if edit.targets is not None:
        summary |= {"target_loss": _finite(edit.targets.loss), "target_nll": _finite(edit.targets.nll)}
    if edit.trace is not None:
        attention, mlp = edit.trace.ie_prob["attention"], edit.trace.ie_prob["mlp"]
        summary["alpha_traced"] = alphas(list(attention), list(mlp), edit.layers, "auto")[edit.layers[0]]
    return summary


def _finite(values: Tensor) -> float | None:
    """The mean, or None where JSON has no number for it."""
    mean = float(values.mean())
    return mean if isfinite(mean) else None


def made(em: EditableModel, cell: Cell) -> dict[str, Any]:
    """Of which model and with which settings; no path of this machine."""
    return {
        "model": {
            "name": base_name(em),
            "identity": em.identity,
            "family": em.family.name,
            "parameters": sum(p.numel() for p in em.model.parameters()),
            "dtype": str(em.dtype).removeprefix("torch."),
            "device": device_name(em.device),
        },
        "config": settings(cell.config),
        "versions": versions(),
        "peak_memory": peak_memory(em.device),
    }
