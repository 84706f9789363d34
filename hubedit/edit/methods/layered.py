"""MEMIT's way through the layers, which IntAttn-Edit, AlphaEdit and EMMET share: the solve of a site differs.

for each edited layer l in order, with the layers before in effect (MEMIT, algorithm 1):
    R = (z - h[L]) / (layers left), at the bare prompt
    for each site of the layer and its share of R, from the same states:
        K = keys, averaged over contexts
        dW = solve(K, share R)

MEMIT, AlphaEdit and EMMET edit the MLP alone, which is alpha = 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from hubedit.edit.methods.context_templates import published_rows
from hubedit.edit.methods.finish import finished, report
from hubedit.edit.result import Edit
from hubedit.edit.rows import Row
from hubedit.edit.solve.keys import States, at_subject, bare, halves
from hubedit.edit.solve.post_norm import site_residual
from hubedit.edit.solve.site_report import SiteReport, solve_device
from hubedit.edit.stages import Job, cached_targets
from hubedit.linalg import LowRank, Preserved
from hubedit.model.hooks import applied
from hubedit.model.sites import Site, SiteKind

Solve = Callable[[Site, Tensor, Tensor], tuple[LowRank, float]]
"""From a site, keys (N, d_in) and residuals (N, d_out), float64, to the update and the lambda it used."""


def layered(job: Job, solve: Solve, alpha: Mapping[int, float] | None = None) -> Edit:
    """Targets at the last layer, then `solve` at each layer's sites; `alpha[l]`: attention's share of the
    residual at layer l (None: the MLP gets all of it)."""
    em, ground, count = job.em, job.ground, len(job.facts)
    alpha = alpha or dict.fromkeys(ground.layers, 0.0)
    rows, essence = published_rows(em, job.facts, job.contexts)
    targets = cached_targets(job, [*rows, *essence], count, ground.layers[-1])
    job.clock.lap("targets")

    job.progress.start("solve", len(ground.layers), "layers")
    last, device = ground.layers[-1], solve_device(em)
    z = bare(rows, count) @ at_subject(em, rows, last).hidden + targets.delta.double()
    factors: dict[Site, LowRank] = {}
    reports: dict[Site, SiteReport] = {}
    live: dict[Site, LowRank] = {}
    with applied(em, live):
        for position, layer in enumerate(ground.layers):
            shares = split(alpha[layer])
            sites = [Site(layer, kind) for kind in shares]
            state, plain = at_subject(em, rows, last, sites), bare(rows, count)
            wanted = residual(z, plain @ state.hidden, len(ground.layers) - position)
            for site in sites:
                key = keys(state, rows, count, site)
                part = site_residual(em, site, plain @ state.outputs[site], shares[site.kind] * wanted)
                update, lam = solve(site, key.to(device), part.to(device))
                factors[site] = update.to("cpu", torch.float32)
                met = _share(part, update.to("cpu").apply(key))
                reports[site] = report(em, site, factors[site], ground.moments, lam, met)
            live.update({site: factors[site].to(em.device) for site in sites})
            job.progress.advance()
    job.progress.finish()
    job.clock.lap("solve")
    return finished(job, factors, reports, targets, alpha)


def keys(state: States, rows: Sequence[Row], count: int, site: Site) -> Tensor:
    """Keys (N, d_in) of a site: the bare prompt counts one half, the contexts the other."""
    return halves(rows, count) @ state.inputs[site]


def residual(z: Tensor, hidden: Tensor, layers_left: int) -> Tensor:
    """R (N, d): what this layer adds of the way from h[L] as it is now (N, d) to z (N, d)."""
    return (z - hidden) / layers_left


def split(alpha: float) -> dict[SiteKind, float]:
    """The share of the residual that each kind of site gets: alpha to o_proj, 1 - alpha to down_proj. A site
    without a share is left out."""
    shares: dict[SiteKind, float] = {"attention": alpha, "mlp": 1 - alpha}
    return {kind: share for kind, share in shares.items() if share > 0}


def preserved(job: Job, site: Site) -> Preserved:
    """lam C of a site; a small ridge stands for what a sample of C does not know."""
    return Preserved.of(
        job.ground.moments[site].matrix.double() * job.config.lam, device=solve_device(job.em)
    )


def _share(wanted: Tensor, met: Tensor) -> float:
    """Share of the residuals' norm that was realised."""
    size = float(wanted.norm())
    return 1.0 - float((wanted - met).norm()) / size if size > 0 else 1.0
