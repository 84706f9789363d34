"""What a solve did at one site, and where solves run."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hubedit.config import EditConfig
from hubedit.edit.locate.balance import parse_null_space
from hubedit.errors import ConfigError
from hubedit.linalg import Threshold, null_space
from hubedit.model.editable import EditableModel
from hubedit.model.sites import Site


@dataclass(frozen=True)
class SiteReport:
    """What the solve did at one site.

    `lam`: lambda, 0 where there is none; `drift`: tr(dW C dW^T) / tr(W C W^T), the change of the site's
    output on ordinary text; `reached`: share of the residual that is realised on the keys, None without one;
    `norm`,
    `weight_norm`: |dW| and |W|, Frobenius.
    """

    lam: float
    drift: float
    reached: float | None
    norm: float
    weight_norm: float


def threshold(config: EditConfig) -> Threshold | None:
    """The threshold of `config.null_space`; None where updates may write anywhere."""
    parsed = parse_null_space(config.null_space)
    return Threshold(*parsed) if parsed else None


def free_basis(moment: Tensor, bound: Threshold, site: Site) -> Tensor:
    """`null_space` of a site's moment (d_in, d_in), on its device. Raises ConfigError when it is empty."""
    basis = null_space(moment, bound)
    if not basis.shape[1]:
        raise ConfigError(
            f"no direction of site {site} is free: every eigenvalue of its moment is above the threshold",
            "raise --null-space; 1% counts relative to the largest eigenvalue",
        )
    return basis


def solve_device(em: EditableModel) -> torch.device:
    """Where float64 solves run: the model's GPU, else the CPU (MPS has no float64)."""
    return em.device if em.device.type == "cuda" else torch.device("cpu")
