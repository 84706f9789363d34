"""The joint edit, hubedit's default: small changes at every site of several early layers, each found at the
site's own output and written by one least-squares solve; again from the first layer while facts are missing.

for at most `rounds` times (more for a long target), for each site in order (lower layers first, a layer's
attention before its MLP), with what all sites have so far in effect, for every fact i that is not there yet:
    step_i  = argmin  mean_c -log P(target_i | form c of prompt_i; W k += step_i) / len(target_i)
                      + kl KL(original || edited  on "{subject} is a") + decay |step_i| / |W k_i|,
              |step_i| <= clamp * share * |W k_i|
    delta_i = delta_i + step_i
    dW      = delta^T Kbar (sum_r w_r k_r k_r^T + lam C)^-1       (hubedit.linalg.least_squares)

k_r are the site's inputs at the subject's last token, one row for each form of a fact's prompt, C is the
second moment of its inputs on ordinary text, and where the chat template is used also in messages. The share
of a layer's attention is alpha and that of its MLP 1 - alpha; a site without a share is left out.

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
from hubedit.edit.batch import EditBatch
from hubedit.edit.methods.finish import finished, report
from hubedit.edit.prompts.contexts import key_rows, preserved_rows, target_rows
from hubedit.edit.prompts.same_subject import by_subject, subjects
from hubedit.edit.result import Edit
from hubedit.edit.rows import Row, bare_rows
from hubedit.edit.solve.chat_template import template_keys
from hubedit.edit.solve.keys import at_subject
from hubedit.edit.solve.residual import share_met, split
from hubedit.edit.solve.site_report import SiteReport, solve_device
from hubedit.edit.targets.optimise import Targets
from hubedit.facts import Fact
from hubedit.linalg import LowRank, right_factor
from hubedit.model.editable import EditableModel
from hubedit.model.memory import release
from hubedit.model.sites import Site
from hubedit.model.tokens import continuation
from hubedit.progress import Silent


def joint(batch: EditBatch) -> Edit:
    """Steps and solve of every site, one after another, round by round."""
    em, facts, baseline, config = batch.model, batch.facts, batch.baseline, batch.config
    edit = target_rows(em, facts, config.prompts, config.targets.contexts)
    solved = key_rows(em, facts, config.prompts)
    # what was edited before about the same subject is among what its one target must give
    again = [fact for fact, _ in batch.same_subject]
    older = bare_rows(target_rows(em, again, config.prompts, config.targets.contexts))
    edit += [replace(older[n], fact=number) for n, (_, number) in enumerate(batch.same_subject)]
    subject = list(subjects(em, facts))
    rows = by_subject([*edit, *preserved_rows(em, facts)], subject)
    sites = [
        (Site(n, kind), share) for n in baseline.layers for kind, share in split(baseline.alpha[n]).items()
    ]
    count, owner = 1 + max(subject), [r.fact for r in solved]
    delta = {site: torch.zeros(count, em.hidden_size) for site, _ in sites}
    loss, nll, norm = torch.zeros(count), torch.zeros(count), torch.ones(count)
    factors: dict[Site, LowRank] = {}
    reports: dict[Site, SiteReport] = {}
    quiet = replace(batch, progress=Silent())
    length = PREFERENCES[config.prefer] * (1 if em.chat is None else config.chat_step)
    rounds = rounds_by_subject(em, facts, subject, config.targets)
    for number in range(1, max(rounds) + 1):
        batch.progress.start(f"edit, round {number} of at most {max(rounds)}", len(sites), "sites")
        # a fact that a later change has undone counts again; one that was never there has its rounds alone
        there = [float(value) <= config.targets.loss for value in loss]
        missing = [fact for fact in range(count) if number <= rounds[fact] or there[fact]]
        for site, share in sites:
            if not missing:
                break
            among = set(missing)
            here = [r for r in rows if r.fact in among]
            normed = 1 if em.family.norm_after(site) is None else config.norm_step
            part = step_of(config.targets, length * normed * share)
            found = quiet.targets(here, count, site.layer, part, site, factors)
            delta[site] += found.delta
            for values, new in ((loss, found.loss), (nll, found.nll), (norm, found.norm)):
                values[missing] = new[missing]
            missing = [fact for fact in missing if float(loss[fact]) > config.targets.loss]
            batch.clock.lap("targets")
            if bool(found.delta.any()) or not factors:
                now = em.with_patch(factors)
                keys = at_subject(now, solved, site.layer, [site]).inputs[site]
                kept = template_keys(now, site) if em.chat is not None and config.chat_template else None
                wanted = delta[site][subject]
                factors[site] = solve(batch, site, keys, solved, wanted, kept)
                met = share_met(wanted[owner], factors[site].apply(keys.float()))
                reports[site] = report(em, site, factors[site], baseline, config.lam, met)
                batch.clock.lap("solve")
            batch.progress.advance()
        batch.progress.finish(f"mean loss {float(loss.mean()):.3f}")
        release(em.device)
        if not missing:
            break
    last, _ = sites[-1]
    targets = Targets(last.layer, delta[last], norm, loss, nll)
    return finished(batch, factors, reports, targets, baseline.alpha)


def rounds_by_subject(
    em: EditableModel, facts: Sequence[Fact], subject: Sequence[int], config: TargetConfig
) -> list[int]:
    """How many rounds each subject's change may take, by the longest target of its facts; `subject`: of each
    fact."""
    longest = [0] * (1 + max(subject))
    for fact, number in zip(facts, subject, strict=True):
        tokens = len(continuation(em.tokenizer, fact.prompt, fact.target, fact.join))
        longest[number] = max(longest[number], tokens)
    return [config.rounds_for(tokens) for tokens in longest]


def step_of(config: TargetConfig, share: float) -> TargetConfig:
    """The settings of one site's step: the clamp, and the moves within it, times the site's share."""
    return replace(config, clamp=share * config.clamp, step=share * config.step)


def solve(
    batch: EditBatch,
    site: Site,
    keys: Tensor,
    rows: Sequence[Row],
    delta: Tensor,
    template: Tensor | None = None,
) -> LowRank:
    """The update that writes `delta` (N, d) at the facts' `keys` (n, d_in); `template` (m, d_in): see
    `template_keys`. float32, CPU."""
    device, count = solve_device(batch.model), len(batch.facts)
    owner = torch.tensor([r.fact for r in rows])
    weight = 1 / torch.bincount(owner, minlength=count).double()[owner]
    # a copy, which the solve may overwrite
    moment = batch.baseline.moments[site].matrix
    preserved = moment.to(device, torch.float64, copy=True).mul_(batch.config.lam)
    if template is not None:
        template = template.to(device)
        preserved.addmm_(template.T, template, alpha=batch.config.lam * batch.config.chat_template)
    if site in batch.earlier_keys:  # what earlier facts have there now counts as much as a new fact
        preserved += batch.earlier_keys[site].to(device)
    right = right_factor(keys, owner, weight, preserved, count)
    return LowRank(delta.T.float(), right.float()).compress()
