"""ROME (Meng et al. 2022, arXiv 2202.05262, eq. 2), R-ROME (Gupta et al. 2024, arXiv 2403.07175), and
IntAttn-Edit for ROME: one layer, one fact after another on the growing patch.

    u = C^-1 k / |C^-1 k|,    dW = (v* - W k0) u^T / (k0 . u)

with k the key averaged over contexts. ROME's code takes k0 from the bare prompt alone, and the mismatch
is what makes long sequences collapse; R-ROME takes k0 = k. v* is what W writes at the bare prompt and delta,
found at W's own output, so that a norm behind it is no matter; W k0 is averaged over contexts where k0 is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch

from hubedit.edit.batch import EditBatch
from hubedit.edit.methods.context_templates import published_rows
from hubedit.edit.methods.finish import finished, report
from hubedit.edit.result import Edit
from hubedit.edit.rows import Row
from hubedit.edit.solve.keys import States, at_subject, bare, uniform
from hubedit.edit.solve.post_norm import moved, site_residual
from hubedit.edit.solve.residual import split
from hubedit.edit.solve.site_report import solve_device
from hubedit.edit.targets.optimise import Targets
from hubedit.linalg import LowRank, Preserved, direction, rank_one
from hubedit.model.sites import Site, SiteKind
from hubedit.progress import Silent

Key = Literal["bare", "mean"]


def rome(batch: EditBatch) -> Edit:
    """ROME: the direction from the averaged key, the value from the bare prompt's."""
    return _one_by_one(batch, "bare", {"mlp": 1.0})


def r_rome(batch: EditBatch) -> Edit:
    """R-ROME: the averaged key throughout."""
    return _one_by_one(batch, "mean", {"mlp": 1.0})


def intattn_rome(batch: EditBatch) -> Edit:
    """IntAttn-Edit for ROME: alpha of R-ROME's residual v* - W k0 to o_proj, 1 - alpha to down_proj, from the
    same states. Behind norms it is what that moves the residual stream by which is shared.

    The averaged key throughout: what R-ROME mends would break here as well. alpha = 0 is R-ROME.
    """
    return _one_by_one(batch, "mean", split(batch.baseline.alpha[batch.baseline.layers[0]]))


def _one_by_one(batch: EditBatch, key: Key, shares: dict[SiteKind, float]) -> Edit:
    em, config, moments = batch.model, batch.config, batch.baseline.moments
    (layer,) = batch.baseline.layers
    mlp, sites = Site(layer, "mlp"), [Site(layer, kind) for kind in shares]
    preserved = {
        s: Preserved.of(moments[s].matrix, device=solve_device(em)) if config.whiten else None for s in sites
    }
    factors: dict[Site, LowRank] = {}
    found: list[Targets] = []
    quiet = replace(batch, progress=Silent())
    settings = replace(config.targets, entries=0)  # as published, over the whole vocabulary
    batch.progress.start("facts", len(batch.facts), "facts")
    for fact in batch.facts:
        now = em.with_patch(factors)
        rows, essence = published_rows(now, [fact], batch.contexts)
        targets = replace(quiet, model=now).targets([*rows, *essence], 1, layer, settings, mlp)
        found.append(targets)
        state = at_subject(now, rows, layer, list(dict.fromkeys([mlp, *sites])))
        for site in sites:
            update = _update(batch, rows, state, site, key, shares[site.kind], targets, preserved[site])
            factors[site] = factors[site] + update if site in factors else update
        batch.progress.advance()
    batch.progress.finish()
    batch.clock.lap("facts")
    reports = {s: report(em, s, factors[s], batch.baseline) for s in sites}
    alpha = shares.get("attention", 0.0)
    return finished(batch, factors, reports, joined(found), {layer: alpha})


def _update(
    batch: EditBatch,
    rows: list[Row],
    state: States,
    site: Site,
    key: Key,
    share: float,
    targets: Targets,
    preserved: Preserved | None,
) -> LowRank:
    """One fact's rank-one update of a site, float32 on the CPU: v* - W k0 along u."""
    em, mlp = batch.model, Site(site.layer, "mlp")
    plain, mean = bare(rows, 1), uniform(rows, 1)
    own = mean if key == "mean" else plain
    # v* is delta on what the bare prompt writes, and an averaged key writes something else
    residual = plain @ state.outputs[mlp] + targets.delta.double() - own @ state.outputs[mlp]
    if share < 1 or site != mlp:
        stream = moved(em, mlp, own @ state.outputs[mlp], residual)
        residual = site_residual(em, site, own @ state.outputs[site], share * stream)
    u = direction((mean @ state.inputs[site])[0].to(solve_device(em)), preserved)
    k0 = (own @ state.inputs[site])[0]
    return rank_one(u, k0, residual[0]).to("cpu", torch.float32)


def joined(parts: list[Targets]) -> Targets:
    """Targets found one after another, at one layer."""
    names = ("delta", "norm", "loss", "nll")
    return Targets(parts[0].layer, **{n: torch.cat([getattr(p, n) for p in parts]) for n in names})
