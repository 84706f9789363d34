"""What a solve did at one site, and where solves run."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from hubedit.model.editable import EditableModel


@dataclass(frozen=True)
class SiteReport:
    """What the solve did at one site.

    `lam`: lambda, 0 where there is none; `drift`: tr(dW C dW^T) / tr(W C W^T), the change of the site's
    output on ordinary text; `reached`: share of the residual that is realised on the keys, None without one;
    `norm`, `weight_norm`: |dW| and |W|, Frobenius.
    """

    lam: float
    drift: float
    reached: float | None
    norm: float
    weight_norm: float


def solve_device(em: EditableModel) -> torch.device:
    """Where float64 solves run: the model's GPU, else the CPU (MPS has no float64)."""
    return em.device if em.device.type == "cuda" else torch.device("cpu")
