"""The end of every method: reports, ordinary text with the update in effect, and the check for collapse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log

from hubedit.edit.batch import EditBatch
from hubedit.edit.result import Edit, judge_collapse
from hubedit.edit.solve.site_report import SiteReport
from hubedit.edit.targets.optimise import Targets
from hubedit.linalg import LowRank, Moments, output_drift, output_power
from hubedit.model.editable import EditableModel
from hubedit.model.score import perplexity
from hubedit.model.sites import Site


def report(
    em: EditableModel,
    site: Site,
    factor: LowRank,
    moments: Mapping[Site, Moments],
    lam: float = 0.0,
    reached: float | None = None,
) -> SiteReport:
    """What an update is at a site; its drift is relative, on the statistics' corpus."""
    moment, weight = moments[site].matrix, em.weight(site).float().cpu()
    drift = output_drift(factor, moment) / max(output_power(weight, moment), 1e-30)
    return SiteReport(lam, drift, reached, factor.norm(), float(weight.norm()))


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
    after = perplexity(batch.model.with_patch(factors), baseline.text)
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
