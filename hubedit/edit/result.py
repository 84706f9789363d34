"""What an edit hands back, and the check that it did not damage the model."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from hubedit.config import EditConfig
from hubedit.edit.locate.trace_result import TraceResult
from hubedit.edit.solve.site_report import SiteReport
from hubedit.edit.targets.optimise import Targets
from hubedit.errors import CollapseError
from hubedit.linalg import LowRank
from hubedit.model.sites import Site
from hubedit.presets import METHODS
from hubedit.progress import Progress


@dataclass(frozen=True)
class Edit:
    """What one run computed. `factors`: float32 on the CPU; `seconds`: by stage.

    `alpha`: attention's share at each layer, empty for a method that has none; `targets`: None for a method
    that optimises weights; `rows`: the fact of each row of the factors, the same at every site, None where
    every fact has one; `keys` (N, d_in): of the facts with the edit in effect, for the next edit to preserve;
    `whole`: reports of the edit and the older patch that it stands on, as one change of the base.
    """

    factors: Mapping[Site, LowRank]
    layers: tuple[int, ...]
    alpha: Mapping[int, float]
    reports: Mapping[Site, SiteReport]
    targets: Targets | None
    trace: TraceResult | None
    perplexity_before: float
    perplexity_after: float
    seconds: Mapping[str, float] = field(default_factory=dict)
    rows: tuple[int, ...] | None = None
    keys: Mapping[Site, Tensor] = field(default_factory=dict)
    whole: Mapping[Site, SiteReport] = field(default_factory=dict)


def check_collapse(reports: Mapping[Site, SiteReport], before: float, after: float, added: str = "") -> None:
    """Raises CollapseError on NaN, on a drift above 1, or when text becomes twice as unlikely. `added`: with
    what else the updates were measured, for the message."""
    for site, report in reports.items():
        check_finite({site: report})
        if not report.drift <= 1:
            raise CollapseError(
                f"the update of site {site}{added} would change its output on ordinary text by more than the "
                f"output itself (relative drift {report.drift:.3g})",
                "add --prefer locality, or choose other --layers",
            )
    if not after - before < 0.7:
        raise CollapseError(
            "the edited model no longer predicts ordinary text "
            f"(mean negative log-likelihood {before:.3g} -> {after:.3g} nats a token)",
            "add --prefer locality, edit fewer facts at once, or choose other --layers",
        )


def check_finite(reports: Mapping[Site, SiteReport]) -> None:
    """Raises CollapseError on an update that is not finite."""
    for site, report in reports.items():
        if not report.norm == report.norm or report.norm == float("inf"):
            raise CollapseError(
                f"the update of site {site} is not finite", "try fewer facts or other --layers"
            )


def judge_collapse(
    reports: Mapping[Site, SiteReport],
    before: float,
    after: float,
    config: EditConfig,
    progress: Progress,
    added: str = "",
) -> None:
    """`check_collapse`; with `config.collapse` "tell" only an update that is not finite raises."""
    check_finite(reports)
    try:
        check_collapse(reports, before, after, added)
    except CollapseError as error:
        if config.collapse == "tell":
            progress.message(f"collapsed: {error.message}")
        elif not METHODS[config.method].published:
            raise
        else:  # its published settings have no budget to lower
            hint = "choose other --layers, edit fewer facts, or another --method"
            raise CollapseError(error.message, hint) from error


class Clock:
    """Seconds by stage, summed where a stage comes again."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Everything since the last lap belongs to `stage`."""
        now = time.perf_counter()
        self.laps[stage] = self.laps.get(stage, 0.0) + now - self._last
        self._last = now
