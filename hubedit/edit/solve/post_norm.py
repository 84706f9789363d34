"""What a site must write for the residual stream to move as wanted."""

from __future__ import annotations

import torch
from torch import Tensor

from hubedit.model.editable import EditableModel
from hubedit.model.sites import Site


def site_residual(em: EditableModel, site: Site, written: Tensor | None, residual: Tensor) -> Tensor:
    """What the site must write more, (N, d), so that the residual stream moves by `residual` (N, d).

    The same, unless the stream adds a multiple of it (Granite), or a norm stands between them (Gemma, OLMo
    2). RMSNorm forgets the scale: with
    x = `written` (N, d) the site's output and w the norm's weight, s t with t = (norm(x) + residual) / w
    gives the wanted direction for any s, and s = <x, t> / |t|^2 changes x the least. What the norm's fixed
    length cannot reach remains.
    """
    name = em.family.norm_after(site)
    residual = residual / em.residual_multiplier
    if name is None:
        return residual
    assert written is not None
    norm = em.model.get_submodule(name)
    x = written
    ones = torch.ones(1, x.shape[1], dtype=em.dtype, device=em.device)
    weight = norm(ones)[0].to("cpu", torch.float64)
    weight = torch.where(weight.abs() < 1e-3, torch.full_like(weight, 1e-3), weight)
    normed = x / x.square().mean(1, keepdim=True).sqrt() * weight
    t = (normed + residual) / weight
    scale = ((x * t).sum(1) / t.square().sum(1)).clamp_min(1e-6)
    return scale[:, None] * t - x
