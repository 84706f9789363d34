"""The directions that a site's inputs hardly use (AlphaEdit, Fang et al. 2025, arXiv 2410.02355)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from hubedit.config import EditConfig
from hubedit.edit.solve.site_report import solve_device
from hubedit.errors import ConfigError
from hubedit.linalg import Moments, Threshold, null_space
from hubedit.model.editable import EditableModel
from hubedit.model.sites import Site
from hubedit.values import parse_null_space


def threshold(config: EditConfig) -> Threshold | None:
    """That of `config.null_space`; None where updates may write anywhere."""
    parsed = parse_null_space(config.null_space)
    return Threshold(*parsed) if parsed else None


def free_bases(em: EditableModel, moments: Mapping[Site, Moments], bound: Threshold) -> dict[Site, Tensor]:
    """`null_space` of every site's moment (d_in, d_in), on the CPU. Raises ConfigError where one is empty."""
    found = {}
    for site, moment in moments.items():
        basis = null_space(moment.matrix.to(solve_device(em)), bound)
        if not basis.shape[1]:
            raise ConfigError(
                f"no direction of site {site} is free: every eigenvalue of its moment is above the threshold",
                "raise --null-space; 1% counts relative to the largest eigenvalue",
            )
        found[site] = basis.cpu()
    return found
