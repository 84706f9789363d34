"""ROME (Meng et al. 2022, arXiv 2202.05262, eq. 2), R-ROME (Gupta et al. 2024, arXiv 2403.07175), and the
joint method in ROME's place: one layer, one fact after another on the growing patch.

    u = C^-1 k / |C^-1 k|,    dW = (v* - W k0) u^T / (k0 . u)

with k the key averaged over contexts. ROME's code takes k0 from the bare prompt alone, and the mismatch
is what makes long sequences collapse; R-ROME takes k0 = k. v* is optimised on the MLP's output, which moves
the residual stream after the layer by the same.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from hubedit.edit.methods.finish import finished, report
from hubedit.edit.methods.prompts import published_rows
from hubedit.edit.methods.states import States, at_subject, bare, uniform
from hubedit.edit.residual import site_residual
from hubedit.edit.result import Edit
from hubedit.edit.rows import Row
from hubedit.edit.spread import solve_device
from hubedit.edit.stages import Job
from hubedit.edit.targets import Targets, optimise
from hubedit.linalg import LowRank, Preserved, direction, rank_one
from hubedit.model.hooks import applied
from hubedit.model.sites import Site, SiteKind

Key = Literal["bare", "mean"]


def rome(job: Job) -> Edit:
    """ROME: the direction from the averaged key, the value from the bare prompt's."""
    return _one_by_one(job, "bare", {"mlp": 1.0})


def r_rome(job: Job) -> Edit:
    """R-ROME: the averaged key throughout."""
    return _one_by_one(job, "mean", {"mlp": 1.0})


def intattn_rome(job: Job) -> Edit:
    """IntAttn-Edit for ROME: alpha of the residual to o_proj, then to down_proj what remains.

    In the order "joint" both are found from the same states, and down_proj gets 1 - alpha. The averaged
    key throughout: what R-ROME mends would break here as well.
    """
    alpha = job.ground.alpha[job.ground.layers[0]]
    shares: dict[SiteKind, float] = {"attention": alpha} if alpha > 0 else {}
    if alpha < 1:
        shares["mlp"] = 1 - alpha if job.config.order == "joint" else 1.0
    return _one_by_one(job, "mean", shares)


def _one_by_one(job: Job, key: Key, shares: dict[SiteKind, float]) -> Edit:
    em, config, ground = job.em, job.config, job.ground
    (layer,) = ground.layers
    sites = [Site(layer, kind) for kind in shares]
    preserved = {
        s: Preserved.of(ground.moments[s].matrix, device=solve_device(em)) if config.whiten else None
        for s in sites
    }
    contexts = job.contexts
    factors: dict[Site, LowRank] = {}
    live: dict[Site, LowRank] = {}
    found: list[Targets] = []
    job.progress.start("facts", len(job.facts), "facts")
    with applied(em, live):
        for fact in job.facts:
            rows, essence = published_rows(em, [fact], contexts)
            targets = optimise(em, [*rows, *essence], 1, layer, config.targets)
            found.append(targets)
            # where the residual stream shall be, for the prompts whose key counts
            weights = bare(rows, 1) if key == "bare" else uniform(rows, 1)
            start = at_subject(em, rows, layer, sites)
            z = weights @ start.hidden + targets.delta.double()
            for site in sites:
                together = config.order == "joint" or site is sites[0]
                state = start if together else at_subject(em, rows, layer, [site])
                wanted = shares[site.kind] * (z - weights @ state.hidden)
                update = _update(job, rows, site, state, weights, wanted, preserved[site])
                factors[site] = factors[site] + update if site in factors else update
                if config.order != "joint":
                    live[site] = factors[site].to(em.device)
            live.update({s: f.to(em.device) for s, f in factors.items()})
            job.progress.advance()
    job.progress.finish()
    job.clock.lap("facts")
    reports = {s: report(em, s, factors[s], ground.moments) for s in sites}
    alpha = shares.get("attention", 0.0)
    return finished(job, factors, reports, joined(found), {layer: alpha})


def _update(
    job: Job,
    rows: list[Row],
    site: Site,
    state: States,
    weights: Tensor,
    wanted: Tensor,
    preserved: Preserved | None,
) -> LowRank:
    """One fact's rank-one update of a site, float32 on the CPU."""
    averaged = (uniform(rows, 1) @ state.inputs[site])[0]
    key = (weights @ state.inputs[site])[0]
    residual = site_residual(job.em, site, weights @ state.outputs[site], wanted)[0]
    u = direction(averaged.to(solve_device(job.em)), preserved)
    return rank_one(u, key, residual).to("cpu", torch.float32)


def joined(parts: list[Targets]) -> Targets:
    """Targets found one after another, at one layer."""
    names = ("delta", "norm", "loss", "nll")
    return Targets(parts[0].layer, **{n: torch.cat([getattr(p, n) for p in parts]) for n in names})
