"""From facts to factors: the whole story on one screen."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from hubedit.cache import Cache
from hubedit.config import EditConfig, to_dict
from hubedit.edit.asked import prepare
from hubedit.edit.balance import MOST_LAYERS, alphas, parse_layers
from hubedit.edit.corpus import corpus_key, holdout_rows, needed_tokens, token_rows
from hubedit.edit.depth import last_layer, window
from hubedit.edit.others import READ
from hubedit.edit.probes import read_text
from hubedit.edit.repair import repair
from hubedit.edit.rows import Row
from hubedit.edit.search import Found, search
from hubedit.edit.spread import Budget, SiteReport, Spreader
from hubedit.edit.stats import second_moments
from hubedit.edit.targets import Targets, optimise
from hubedit.edit.trace import trace
from hubedit.edit.trace_result import TraceResult
from hubedit.errors import CollapseError
from hubedit.facts import Fact
from hubedit.linalg import LowRank
from hubedit.model.editable import EditableModel
from hubedit.model.hooks import applied
from hubedit.model.sites import Site
from hubedit.progress import Progress, Silent

TEXT_ROWS = 48


@dataclass(frozen=True)
class Edit:
    """What one run computed. `factors`: float32 on the CPU; `seconds`: by stage."""

    factors: Mapping[Site, LowRank]
    layers: tuple[int, ...]
    alpha: Mapping[int, float]
    reports: Mapping[Site, SiteReport]
    found: Found
    targets: Targets
    trace: TraceResult | None
    perplexity_before: float
    perplexity_after: float
    repaired: int
    seconds: Mapping[str, float] = field(default_factory=dict)


def compute(
    em: EditableModel,
    facts: Sequence[Fact],
    config: EditConfig,
    *,
    kept: Sequence[Fact] = (),
    cache: Cache | None = None,
    progress: Progress | None = None,
) -> Edit:
    """Edits `facts` into factors for `em`, which is the same model afterwards, also when this raises.

    `kept`: facts that an older patch, in effect now, has edited, and that must stay so.
    Raises CollapseError when the result would damage the model, ConfigError when options do not fit it.
    """
    cache, progress = cache or Cache(), progress or Silent()
    clock = Clock()
    traced, layers, alpha = locate_sites(em, facts, config, cache, progress)
    clock.lap("trace")
    sites = [Site(n, "mlp") for n in layers] + [Site(n, "attention") for n in layers if alpha[n] > 0]
    moments = second_moments(em, sites, config.stats, cache, progress)
    text = holdout_rows(em, config.stats, TEXT_ROWS, cache, progress)
    seen = min(needed_tokens(em, config.stats), READ)
    corpus = [*token_rows(em, config.stats, seen, cache, Silent()), *text]
    clock.lap("statistics")

    progress.start("survey", len(facts), "facts")
    asked = prepare(em, facts, config, corpus, text, kept)
    clean = read_text(em, text)
    progress.finish()
    clock.lap("survey")

    targets = cached_targets(em, facts, asked.all_rows, layers[-1], config, cache, progress)
    clock.lap("targets")

    progress.start("solve")
    around = [*asked.rows, *asked.preserved, *asked.others]
    spreader = Spreader(em, asked.rows, len(facts), layers, moments, around=around, own=config.own)
    fixed = config.lam > 0 or not config.search
    budgets = [Budget(config.drift_attention, config.drift_mlp, config.lam)] if fixed else []
    found = search(
        spreader,
        targets.delta,
        alpha,
        asked.probes,
        clean,
        order=config.order,
        budgets=budgets,
        given=config.alpha not in ("auto", "per-layer"),
        tick=progress.advance,
    )
    progress.finish()
    clock.lap("solve")

    solution, repaired = repair(em, spreader, found, asked.all_rows, asked.probes, clean, config, progress)
    factors = {site: solution.factors[site] for site in sorted(solution.factors)}
    with applied(em, {s: f.to(em.device) for s, f in factors.items()}):
        after = read_text(em, text)
    check_collapse(solution.reports, clean.nll, after.nll)
    clock.lap("repair")
    return Edit(
        factors,
        layers,
        found.trial.alpha,
        solution.reports,
        found,
        targets,
        traced,
        float(torch.tensor(clean.nll).exp()),
        float(torch.tensor(after.nll).exp()),
        repaired,
        clock.laps,
    )


def locate_sites(
    em: EditableModel, facts: Sequence[Fact], config: EditConfig, cache: Cache, progress: Progress
) -> tuple[TraceResult | None, tuple[int, ...], dict[int, float]]:
    """The edited layers and attention's share at each; traces only when one of them asks for it."""
    traced = None
    if config.layers == "auto" or config.alpha in ("auto", "per-layer"):
        traced = trace(em, facts, replace(config.trace, tokens="subject_last"), cache, progress)
    attention = list(traced.ie_prob["attention"]) if traced else [0.0] * em.num_layers
    mlp = list(traced.ie_prob["mlp"]) if traced else [0.0] * em.num_layers
    if config.layers == "auto":
        last, _ = last_layer(em, facts, mlp, config.targets, progress)
        layers = window(mlp, last, MOST_LAYERS)
    else:
        layers = parse_layers(config.layers, em.num_layers)
    return traced, layers, alphas(attention, mlp, layers, config.alpha)


def cached_targets(
    em: EditableModel,
    facts: Sequence[Fact],
    rows: Sequence[Row],
    layer: int,
    config: EditConfig,
    cache: Cache,
    progress: Progress,
) -> Targets:
    """Targets from the cache, else optimised now. The key holds every row, so every input."""
    key = {
        "model": em.identity,
        "dtype": str(em.dtype),
        "device": em.device.type,
        "layer": layer,
        "config": to_dict(config.targets),
        "rows": [[r.fact, list(r.ids), r.last, list(r.labels), r.preserve] for r in rows],
        "corpus": corpus_key(config.stats, em),
    }
    progress.start("targets", len(facts), "facts")
    entry = cache.load("targets", key)
    if entry is not None:
        targets = Targets(layer, **{n: entry.tensors[n] for n in ("delta", "norm", "loss", "nll")})
        progress.advance(len(facts))
    else:
        targets = optimise(em, rows, len(facts), layer, config.targets, progress=progress)
        tensors = {n: getattr(targets, n) for n in ("delta", "norm", "loss", "nll")}
        cache.save("targets", key, tensors, {})
    progress.finish(f"mean loss {float(targets.loss.mean()):.3f}")
    return targets


def check_collapse(reports: Mapping[Site, SiteReport], before: float, after: float) -> None:
    """Raises CollapseError on NaN, on a drift above 1, or when text becomes twice as unlikely."""
    for site, report in reports.items():
        if not report.norm == report.norm or report.norm == float("inf"):
            raise CollapseError(
                f"the update of site {site} is not finite", "try fewer facts or other --layers"
            )
        if not report.drift <= 1:
            raise CollapseError(
                f"the update of site {site} would change its output on ordinary text by more than the output "
                f"itself (relative drift {report.drift:.3g})",
                "lower --drift-mlp, or choose other --layers",
            )
    if not after - before < 0.7:
        raise CollapseError(
            "the edited model no longer predicts ordinary text "
            f"(mean negative log-likelihood {before:.3g} -> {after:.3g} nats a token)",
            "lower --drift-mlp, edit fewer facts at once, or choose other --layers",
        )


class Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Everything since the last lap belongs to `stage`."""
        now = time.perf_counter()
        self.laps[stage] = now - self._last
        self._last = now
