"""The joint edit, hubedit's default: small changes at every site of several early layers, each found at the
site's own output and written by one least-squares solve; again from the first layer while facts are missing.

for at most `rounds` times, for each site in order (lower layers first, a layer's attention before its MLP),
with what all sites have so far in effect, for every fact i that is not there yet:
    step_i  = argmin  mean_c -log P(target_i | form c of prompt_i; W k += step_i) / len(target_i)
                      + kl KL(original || edited  on "{subject} is a") + decay |step_i| / |W k_i|,
              |step_i| <= clamp * share * |W k_i|
    delta_i = delta_i + step_i
    dW      = delta^T Kbar (sum_r w_r k_r k_r^T + lam C)^-1       (hubedit.linalg.least_squares)

k_r are the site's inputs at the subject's last token, one row for each form of a fact's prompt, C is the
second moment of its inputs on ordinary text. The share of a layer's attention is alpha and that of its MLP 1
- alpha; a site without a share is left out.

It differs from MEMIT (Meng et al. 2023) and IntAttn-Edit (arXiv 2510.27400) in where the target stands: at
the site's own output and not in the residual stream after the last edited layer. So a norm behind the site
(Gemma, OLMo 2) is no matter, and every later site brings what the sites before it have left. The steps are
short because what they do to other subjects adds up like noise over the layers, and what they do for a fact
adds up in full (docs/experiments.md). docs/method.md says which part is whose.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from hubedit.config import PREFERENCES, TargetConfig
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
from hubedit.progress import Silent


def joint(job: Job) -> Edit:
    """Steps and solve of every site, one after another, round by round."""
    em, facts, ground, config = job.em, job.facts, job.ground, job.config
    wanted, keys = target_rows(em, facts, config.targets.contexts), key_rows(em, facts)
    # what was edited before about the same subject is among what its one target must give
    older = [(number, job.kept[n]) for n, number in sharing(em, facts, job.kept).items()]
    wanted += [replace(edit_rows(em, [fact], ())[0], fact=number) for number, fact in older]
    where = list(subjects(em, facts))
    rows = by_subject([*wanted, *preserved_rows(em, facts)], where)
    sites = [found for layer in ground.layers for found in sites_of(layer, ground.alpha[layer])]
    count, quiet = 1 + max(where), replace(job, progress=Silent())
    delta = {site: torch.zeros(count, em.hidden_size) for site, _ in sites}
    loss, nll, norm = torch.zeros(count), torch.zeros(count), torch.ones(count)
    factors: dict[Site, LowRank] = {}
    reports: dict[Site, SiteReport] = {}
    missing = set(range(count))
    for number in range(config.targets.rounds):
        job.progress.start(f"edit, round {number + 1}", len(sites), "sites")
        # what a later change has undone counts again
        missing = set(range(count))
        for site, share in sites:
            if not missing:
                break
            part, some = step_of(config.targets, PREFERENCES[config.prefer] * share), sorted(missing)
            here = [r for r in rows if r.fact in missing]
            found = cached_targets(quiet, here, count, site.layer, part, site, factors)
            delta[site] += found.delta
            for values, new in ((loss, found.loss), (nll, found.nll), (norm, found.norm)):
                values[some] = new[some]
            missing = {fact for fact in some if float(loss[fact]) > config.targets.loss}
            job.clock.lap("targets")
            if bool(found.delta.any()) or not factors:
                with applied(em, {s: f.to(em.device) for s, f in factors.items()}):
                    k = at_subject(em, keys, site.layer, [site]).inputs[site]
                factors[site] = _solve(job, site, k, keys, delta[site][where])
                asked = delta[site][where][[r.fact for r in keys]]
                missed = float(
                    (factors[site].apply(k.float()) - asked).norm() / asked.norm().clamp_min(1e-30)
                )
                reports[site] = report(em, site, factors[site], ground.moments, config.lam, 1 - missed)
                job.clock.lap("solve")
            job.progress.advance()
        job.progress.finish(f"mean loss {float(loss.mean()):.3f}")
        if not missing:
            break
    last = sites[-1][0]
    targets = Targets(last.layer, delta[last], norm, loss, nll)
    return finished(job, factors, reports, targets, ground.alpha)


def step_of(config: TargetConfig, share: float) -> TargetConfig:
    """The settings of one site's step: the clamp, and the moves within it, times the site's share."""
    return replace(config, clamp=share * config.clamp, step=share * config.step)


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
        preserved += job.earlier[site].to(device)
    right = right_factor(keys.to(device), owner, weight, preserved, count)
    return LowRank(delta.T.float().cpu(), right.float().cpu()).compress()
