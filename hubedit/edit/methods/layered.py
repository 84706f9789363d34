"""MEMIT's way through the layers, which AlphaEdit and EMMET share: only the solve of one site differs.

for each edited layer l in order, with the layers before in effect (MEMIT, algorithm 1):
    K = keys, averaged over contexts;  R = (z - h[L]) / (layers left), at the bare prompt
    dW[l] = solve(K, R)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from hubedit.edit.methods.finish import finished, report
from hubedit.edit.methods.prompts import published_rows
from hubedit.edit.methods.states import at_subject, bare, halves
from hubedit.edit.residual import site_residual
from hubedit.edit.result import Edit
from hubedit.edit.spread import SiteReport, solve_device
from hubedit.edit.stages import Job, cached_targets
from hubedit.linalg import LowRank
from hubedit.model.hooks import applied
from hubedit.model.sites import Site

Solve = Callable[[Site, Tensor, Tensor], tuple[LowRank, float]]
"""From a site, keys (N, d_in) and residuals (N, d_out), float64, to the update and the lambda it used."""


def layered(job: Job, solve: Solve) -> Edit:
    """Targets at the last layer, then `solve` at each layer's MLP."""
    em, ground, count = job.em, job.ground, len(job.facts)
    rows, essence = published_rows(em, job.facts, job.contexts)
    targets = cached_targets(job, [*rows, *essence], count, ground.layers[-1])
    job.clock.lap("targets")

    job.progress.start("solve", len(ground.layers), "layers")
    mean, plain, last = halves(rows, count), bare(rows, count), ground.layers[-1]
    device = solve_device(em)
    z = plain @ at_subject(em, rows, last).hidden + targets.delta.double()
    factors: dict[Site, LowRank] = {}
    reports: dict[Site, SiteReport] = {}
    live: dict[Site, LowRank] = {}
    with applied(em, live):
        for position, layer in enumerate(ground.layers):
            site = Site(layer, "mlp")
            state = at_subject(em, rows, last, [site])
            keys = mean @ state.inputs[site]
            wanted = (z - plain @ state.hidden) / (len(ground.layers) - position)
            residual = site_residual(em, site, plain @ state.outputs[site], wanted)
            update, lam = solve(site, keys.to(device), residual.to(device))
            factors[site] = update.to("cpu", torch.float32)
            live[site] = factors[site].to(em.device)
            met = update.to("cpu").apply(keys)
            reports[site] = report(em, site, factors[site], ground.moments, lam, _share(residual, met))
            job.progress.advance()
    job.progress.finish()
    job.clock.lap("solve")
    return finished(job, factors, reports, targets, dict.fromkeys(ground.layers, 0.0))


def earlier_moment(job: Job, site: Site) -> Tensor | None:
    """K^T K (d_in, d_in) of the facts edited before, float64; None where there are none."""
    keys: Mapping[Site, Tensor] = job.earlier
    return keys[site].double().T @ keys[site].double() if site in keys else None


def _share(wanted: Tensor, met: Tensor) -> float:
    """Share of the residuals' norm that was realised."""
    size = float(wanted.norm())
    return 1.0 - float((wanted - met).norm()) / size if size > 0 else 1.0
