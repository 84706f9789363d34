"""The end of every method: reports, ordinary text with the update in effect, and the check for collapse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log

import torch

from hubedit.edit.baseline import Baseline
from hubedit.edit.batch import EditBatch
from hubedit.edit.result import Edit, judge_collapse
from hubedit.edit.solve.site_report import SiteReport, solve_device
from hubedit.edit.targets.optimise import Targets
from hubedit.linalg import LowRank, output_drift
from hubedit.model.editable import EditableModel
from hubedit.model.score import perplexity
from hubedit.model.sites import Site


def report(
    em: EditableModel,
    site: Site,
    factor: LowRank,
    baseline: Baseline,
    lam: float = 0.0,
    reached: float | None = None,
) -> SiteReport:
    """What an update is at a site; its drift is relative, on the statistics' corpus."""
    own = factor.to(solve_device(em))
    moment = baseline.moments[site].matrix.to(own.A.device, torch.float64)
    drift = output_drift(own, moment) / max(baseline.power[site], 1e-30)
    return SiteReport(lam, drift, reached, own.norm(), float(em.weight(site).float().norm()))


def finished(
    batch: EditBatch,
    factors: Mapping[Site, LowRank],
    reports: Mapping[Site, SiteReport],
    targets: Targets | None,
    alpha: Mapping[int, float],
    rows: Sequence[int] | None = None,
) -> Edit:
    """The edit, measured on held-out text; `rows`: as in `Edit`. Raises CollapseError."""
    baseline = batch.baseline
    batch.progress.start("measuring perplexity after")
    after = perplexity(batch.model.with_patch(factors), baseline.text)
    batch.progress.finish()
    judge_collapse(reports, log(baseline.perplexity), log(after), batch.config, batch.progress)
    batch.clock.lap("check")
    return Edit(
        {site: factors[site] for site in sorted(factors)},
        baseline.layers,
        alpha,
        reports,
        targets,
        baseline.trace,
        baseline.perplexity,
        after,
        batch.clock.laps,
        None if rows is None else tuple(rows),
    )
