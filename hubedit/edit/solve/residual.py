"""The residual of a layer, and each site's share of it (MEMIT, eq. 20; IntAttn-Edit's alpha)."""

from __future__ import annotations

from torch import Tensor

from hubedit.model.sites import SiteKind


def residual(z: Tensor, hidden: Tensor, layers_left: int) -> Tensor:
    """R (N, d): what this layer adds of the way from h[L] as it is now (N, d) to z (N, d)."""
    return (z - hidden) / layers_left


def split(alpha: float) -> dict[SiteKind, float]:
    """The share of the residual (joint: of a step's length) that each kind of site gets: alpha to o_proj, 1 -
    alpha to down_proj. A site without a share is left out."""
    shares: dict[SiteKind, float] = {"attention": alpha, "mlp": 1 - alpha}
    return {kind: share for kind, share in shares.items() if share > 0}


def share_met(wanted: Tensor, met: Tensor) -> float:
    """Share of the norm of the residuals `wanted` (N, d) that an update realises, which writes `met`."""
    size = float(wanted.norm())
    return 1.0 - float((wanted - met).norm()) / size if size > 0 else 1.0
