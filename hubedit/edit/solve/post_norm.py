"""What a site must write for the residual stream to move as wanted."""

from __future__ import annotations

import torch
from torch import Tensor

from hubedit.model.editable import EditableModel
from hubedit.model.sites import Site


def moved(em: EditableModel, site: Site, written: Tensor, change: Tensor) -> Tensor:
    """What the residual stream moves by, (N, d), where the site writes `change` (N, d) more than `written`
    (N, d). Without a norm this is the inverse of `site_residual`; behind one `site_residual` gives another
    change that moves the stream alike."""
    scale = em.residual_multiplier
    if em.family.norm_after(site) is None:
        return change * scale
    weight = _weight(em, site)
    return (_normed(written + change) - _normed(written)) * weight * scale


def site_residual(em: EditableModel, site: Site, written: Tensor | None, residual: Tensor) -> Tensor:
    """What the site must write more, (N, d), so that the residual stream moves by `residual` (N, d).

    The same, unless the stream adds a multiple of it (Granite), or a norm stands between them (Gemma, OLMo
    2). RMSNorm forgets the scale: with
    x = `written` (N, d) the site's output and w the norm's weight, s t with t = (norm(x) + residual) / w
    gives the wanted direction for any s, and s = <x, t> / |t|^2 changes x the least. What the norm's fixed
    length cannot reach remains.
    """
    residual = residual / em.residual_multiplier
    if em.family.norm_after(site) is None:
        return residual
    assert written is not None
    x, weight = written, _weight(em, site)
    weight = torch.where(weight.abs() < 1e-3, torch.full_like(weight, 1e-3), weight)
    t = _normed(x) + residual / weight
    scale = ((x * t).sum(1) / t.square().sum(1)).clamp_min(1e-6)
    return scale[:, None] * t - x


def _weight(em: EditableModel, site: Site) -> Tensor:
    """The norm's weight (d,) as it is multiplied by, float64 on the CPU: some families store it less one."""
    norm = em.model.get_submodule(str(em.family.norm_after(site)))
    ones = torch.ones(1, em.hidden_size, dtype=em.dtype, device=em.device)
    weight: Tensor = norm(ones)[0].to("cpu", torch.float64)
    return weight


def _normed(x: Tensor) -> Tensor:
    return x / x.square().mean(1, keepdim=True).sqrt()
