"""The joint edit, hubedit's default: every site's target at its own output, and one least-squares solve a
site.

for each site in order (lower layers first, a layer's attention before its MLP), with the sites before in
effect:
    delta_i = argmin  mean_c -log P(target_i | form c of prompt_i; W k += delta_i) / len(target_i)
                      + kl KL(original || edited  on "{subject} is a") + decay |delta_i| / |W k_i|,
              |delta_i| <= clamp * share * |W k_i|
    dW = delta^T Kbar (sum_r w_r k_r k_r^T + lam C)^-1        (hubedit.linalg.least_squares)

k_r are the site's inputs at the subject's last token, one row for each form of a fact's prompt, C is the
second moment of its inputs on ordinary text. The share of a layer's attention is alpha and that of its MLP 1
- alpha; a site without a share is left out.

It differs from MEMIT (Meng et al. 2023) and IntAttn-Edit (arXiv 2510.27400) in where the target stands: at
the site's own output and not in the residual stream after the last edited layer. So a norm behind the site
(Gemma, OLMo 2) is no matter, and every later site brings what the sites before it have left. docs/method.md
says which part is whose, docs/experiments.md what each brings on real models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from hubedit.config import PREFERENCES
from hubedit.edit.methods.finish import finished, report
from hubedit.edit.prompts.contexts import key_rows, preserved_rows, target_rows
from hubedit.edit.prompts.same_subject import by_subject, sharing, subjects
from hubedit.edit.result import Edit
from hubedit.edit.rows import Row, edit_rows
from hubedit.edit.solve.keys import at_subject
from hubedit.edit.solve.site_report import SiteReport, solve_device
from hubedit.edit.stages import Job, cached_targets
from hubedit.edit.targets.optimise import Targets
from hubedit.linalg import LowRank, right_factor
from hubedit.model.hooks import applied
from hubedit.model.sites import Site

MOST_TRIALS = 5


def joint(job: Job) -> Edit:
    """Targets and solve of every site, one after another."""
    em, facts, ground, config = job.em, job.facts, job.ground, job.config
    wanted, keys = target_rows(em, facts, config.targets.contexts), key_rows(em, facts)
    # what was edited before about the same subject is among what its one target must give
    older = [(number, job.kept[n]) for n, number in sharing(em, facts, job.kept).items()]
    wanted += [replace(edit_rows(em, [fact], ())[0], fact=number) for number, fact in older]
    where = subjects(em, facts)
    rows = by_subject([*wanted, *preserved_rows(em, facts)], where)
    factors: dict[Site, LowRank] = {}
    reports: dict[Site, SiteReport] = {}
    targets: Targets | None = None
    clamp = PREFERENCES[config.prefer] * clamp_of(job, rows)
    job.clock.lap("clamp")
    for layer in ground.layers:
        for site, share in sites_of(layer, ground.alpha[layer]):
            bound = clamp * share * (config.targets.last if layer == ground.layers[-1] else 1)
            part = replace(config.targets, clamp=bound)
            targets = cached_targets(job, rows, 1 + max(where), layer, part, site, factors)
            job.clock.lap("targets")
            delta = targets.delta[list(where)]
            with applied(em, {s: f.to(em.device) for s, f in factors.items()}):
                k = at_subject(em, keys, layer, [site]).inputs[site]
            factors[site] = _solve(job, site, k, keys, delta)
            met = factors[site].apply(k.float())
            asked = delta[[r.fact for r in keys]]
            missed = float((met - asked).norm() / asked.norm().clamp_min(1e-30))
            reports[site] = report(em, site, factors[site], ground.moments, config.lam, 1 - missed)
            job.clock.lap("solve")
    return finished(job, factors, reports, targets, ground.alpha)


def clamp_of(job: Job, rows: Sequence[Row]) -> float:
    """The clamp for this model: the configuration's, times `growth` until a few facts come down to `reach`
    nats a token at the first edited layer's MLP, at most `MOST_TRIALS` times. How far a change must go
    differs by a factor of three between models, and a longer one than needed does harm
    (docs/experiments.md).
    """
    config = job.config.targets
    several = max(r.fact for r in rows) >= 2 * config.trial_facts
    some = [r for r in rows if r.fact < config.trial_facts] if several else list(rows)
    clamp, site = config.clamp, Site(job.ground.layers[0], "mlp")
    for _ in range(MOST_TRIALS if config.reach > 0 else 0):
        part = replace(config, clamp=clamp)
        found = cached_targets(job, some, 1 + max(r.fact for r in some), site.layer, part, site)
        if float(found.nll.mean()) <= config.reach:
            break
        clamp *= config.growth
    return clamp


def sites_of(layer: int, alpha: float) -> list[tuple[Site, float]]:
    """A layer's sites that have a share, in the order of the data."""
    shares = ((Site(layer, "attention"), alpha), (Site(layer, "mlp"), 1 - alpha))
    return [(site, share) for site, share in shares if share > 0]


def _solve(job: Job, site: Site, keys: Tensor, rows: Sequence[Row], delta: Tensor) -> LowRank:
    """The update that writes `delta` (N, d) at the facts' `keys` (n, d_in). float32, CPU."""
    device, count = solve_device(job.em), len(job.facts)
    owner = torch.tensor([r.fact for r in rows], device=device)
    weight = 1 / torch.bincount(owner, minlength=count).double()[owner]
    preserved = job.config.lam * job.ground.moments[site].matrix.to(device, torch.float64)
    if site in job.earlier:  # what earlier facts have there now counts as much as a new fact
        earlier = job.earlier[site].to(device, torch.float64)
        preserved += earlier.T @ earlier
    right = right_factor(keys.to(device), owner, weight, preserved, count)
    return LowRank(delta.T.float().cpu(), right.float().cpu()).compress()
