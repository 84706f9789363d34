"""MEMIT's way through the layers, which IntAttn-Edit, AlphaEdit and EMMET share: the solve of a site differs.

for each edited layer l in order, with the layers before in effect (MEMIT, algorithm 1):
    R = (z - h[L]) / (layers left), at the bare prompt
    for each site of the layer and its share of R, from the same states:
        K = keys, averaged over contexts
        dW = solve(K, share R)

MEMIT, AlphaEdit and EMMET edit the MLP alone, which is alpha = 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from hubedit.edit.batch import EditBatch
from hubedit.edit.methods.context_templates import published_rows
from hubedit.edit.methods.finish import finished, report
from hubedit.edit.result import Edit
from hubedit.edit.solve.keys import at_subject, bare, keys
from hubedit.edit.solve.post_norm import site_residual
from hubedit.edit.solve.residual import residual, share_met, split
from hubedit.edit.solve.site_report import SiteReport, solve_device
from hubedit.linalg import LowRank, Preserved
from hubedit.model.sites import Site

Solve = Callable[[Site, Tensor, Tensor], tuple[LowRank, float]]
"""From a site, keys (N, d_in) and residuals (N, d_out), float64, to the update and the lambda it used."""


def layered(batch: EditBatch, solve: Solve, alpha: Mapping[int, float] | None = None) -> Edit:
    """Targets at the last layer, then `solve` at each layer's sites; `alpha[l]`: attention's share of the
    residual at layer l (None: the MLP gets all of it)."""
    em, layers, count = batch.model, batch.baseline.layers, len(batch.facts)
    alpha = alpha or dict.fromkeys(layers, 0.0)
    rows, essence = published_rows(em, batch.facts, batch.contexts)
    targets = batch.targets([*rows, *essence], count, layers[-1])
    batch.clock.lap("targets")

    batch.progress.start("solve", len(layers), "layers")
    plain, device = bare(rows, count), solve_device(em)
    z = plain @ at_subject(em, rows, layers[-1]).hidden + targets.delta.double()
    factors: dict[Site, LowRank] = {}
    reports: dict[Site, SiteReport] = {}
    for position, layer in enumerate(layers):
        shares = split(alpha[layer])
        sites = [Site(layer, kind) for kind in shares]
        state = at_subject(em.with_patch(factors), rows, layers[-1], sites)
        wanted = residual(z, plain @ state.hidden, len(layers) - position)
        for site in sites:
            key = keys(state, rows, count, site)
            part = site_residual(em, site, plain @ state.outputs[site], shares[site.kind] * wanted)
            update, lam = solve(site, key.to(device), part.to(device))
            factors[site] = update.to("cpu", torch.float32)
            met = share_met(part, update.to("cpu").apply(key))
            reports[site] = report(em, site, factors[site], batch.baseline, lam, met)
        batch.progress.advance()
    batch.progress.finish()
    batch.clock.lap("solve")
    return finished(batch, factors, reports, targets, alpha)


def preserved(batch: EditBatch, site: Site) -> Preserved:
    """lam C of a site; a small ridge stands for what a sample of C does not know."""
    moment = batch.baseline.moments[site].matrix.double()
    return Preserved.of(moment * batch.config.lam, device=solve_device(batch.model))
