"""Stages that every method shares: what is measured once on the model, and targets with their cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from hubedit.cache import Cache
from hubedit.config import EditConfig, StatsConfig, TargetConfig, to_dict
from hubedit.edit.locate.balance import alphas, parse_layers, usual_layers
from hubedit.edit.locate.trace import trace
from hubedit.edit.locate.trace_result import TraceResult
from hubedit.edit.result import Clock
from hubedit.edit.rows import Row
from hubedit.edit.statistics.corpus import holdout_rows
from hubedit.edit.statistics.second_moments import second_moments
from hubedit.edit.targets.optimise import Targets, optimise
from hubedit.errors import ConfigError
from hubedit.facts import Fact
from hubedit.linalg import LowRank, Moments
from hubedit.model.editable import EditableModel
from hubedit.model.score import perplexity
from hubedit.model.sites import Site
from hubedit.presets import METHODS
from hubedit.progress import Progress

TEXT_ROWS = 16
_FORMAT = 6  # goes up when a change in how targets are found gives other results


@dataclass(frozen=True)
class Ground:
    """What is measured once, on the model before any of the facts is edited, for all batches.

    `alpha`: attention's share at each layer; `moments`: of every site that may be edited; `text`: token rows
    held out of the statistics; `perplexity`: the model's on `text`; `free`: the directions (d_in, m) that
    inputs of a site hardly use, kept from batch to batch by methods that write into them alone.
    """

    traced: TraceResult | None
    layers: tuple[int, ...]
    alpha: Mapping[int, float]
    moments: Mapping[Site, Moments]
    text: Sequence[Sequence[int]]
    perplexity: float
    free: dict[Site, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """One batch for a method. `em` behaves as after the batches before, under an identity of its own.

    `kept`: facts edited before that stay so; `earlier`: the keys (M, d_in) of facts edited before, for
    methods that preserve keys; `contexts`: for the published methods, sentences before the prompts, from the
    model as it was before the first batch.
    """

    em: EditableModel
    facts: Sequence[Fact]
    config: EditConfig
    ground: Ground
    cache: Cache
    progress: Progress
    clock: Clock
    kept: Sequence[Fact] = ()
    earlier: Mapping[Site, Tensor] = field(default_factory=dict)
    contexts: Sequence[str] = ()


def measure(
    em: EditableModel,
    facts: Sequence[Fact],
    config: EditConfig,
    cache: Cache,
    progress: Progress,
    clock: Clock,
) -> Ground:
    """Traces and chooses the sites, reads the statistics. Raises ConfigError for options that do not fit."""
    traced, layers, alpha = locate_sites(em, facts, config, cache, progress)
    clock.lap("trace")
    method = METHODS[config.method]
    sites = [Site(n, "mlp") for n in layers]
    if method.attention:
        # LoRA has no share, and trains both sites
        sites += [Site(n, "attention") for n in layers if alpha[n] > 0 or "alpha" not in method.settings]
    moments = second_moments(em, sites, config.stats, cache, progress)
    text = holdout_rows(em, config.stats, TEXT_ROWS, cache, progress)
    clean = perplexity(em, text)
    clock.lap("statistics")
    return Ground(traced, layers, alpha, moments, text, clean)


def unseen_rows(
    em: EditableModel, stats: StatsConfig, cache: Cache, progress: Progress
) -> tuple[list[list[int]], bool]:
    """Token rows to measure perplexity and divergence on, and whether an edit with this text used them.

    They stand behind the rows on which an edit is checked for collapse; a corpus that ends before gives those
    instead.
    """
    tried = holdout_rows(em, stats, TEXT_ROWS, cache, progress)
    more = holdout_rows(em, stats, 2 * TEXT_ROWS, cache, progress)
    if len(more) == 2 * TEXT_ROWS and more[:TEXT_ROWS] == tried:
        return more[TEXT_ROWS:], False
    return tried, True


def locate_sites(
    em: EditableModel, facts: Sequence[Fact], config: EditConfig, cache: Cache, progress: Progress
) -> tuple[TraceResult | None, tuple[int, ...], dict[int, float]]:
    """The edited layers and attention's share at each; traces only when one of them asks for it.

    A method of one layer takes the one of the largest MLP effect, the others those that a depth stands for
    (`hubedit.edit.locate.balance.usual_layers`).
    """
    method = METHODS[config.method]
    setting = config.alpha if "alpha" in method.settings else "0"
    traced = None
    if (config.layers == "auto" and method.one_layer and not method.depth) or setting in (
        "auto",
        "per-layer",
    ):
        traced = trace(em, facts, replace(config.trace, tokens="subject_last"), cache, progress)
    attention = list(traced.ie_prob["attention"]) if traced else [0.0] * em.num_layers
    mlp = list(traced.ie_prob["mlp"]) if traced else [0.0] * em.num_layers
    if config.layers != "auto":
        layers = parse_layers(config.layers, em.num_layers)
    elif method.depth:
        layers = (method.own_layer(em.num_layers),)
    elif method.one_layer:
        # after the last layer no other token can read the change any more
        layers = (max(range(max(em.num_layers - 1, 1)), key=lambda n: mlp[n]),)
    else:
        layers = usual_layers(em.num_layers, not method.published)
    check_one_layer(config, layers)
    return traced, layers, alphas(attention, mlp, layers, setting)


def check_one_layer(config: EditConfig, layers: Sequence[int]) -> None:
    """Raises ConfigError where a method of one layer is given several."""
    if METHODS[config.method].one_layer and len(layers) != 1:
        raise ConfigError(
            f"{config.method} edits one layer, and --layers gives {len(layers)}",
            f"give one, such as --layers {layers[0]}, or leave it out",
        )


def cached_targets(
    job: Job,
    rows: Sequence[Row],
    count: int,
    layer: int,
    config: TargetConfig | None = None,
    site: Site | None = None,
    factors: Mapping[Site, LowRank] | None = None,
) -> Targets:
    """Targets of `count` facts or subjects, whose numbers the rows bear, from the cache, else optimised now.
    The key holds every input; `site`, `factors`: as for `optimise`, `config`: the job's without one."""
    em, progress, config = job.em, job.progress, config or job.config.targets
    key = {
        "format": _FORMAT,
        "model": em.identity,
        "dtype": str(em.dtype),
        "device": em.device.type,
        "layer": layer,
        "site": str(site),
        "factors": {str(s): f.digest() for s, f in sorted((factors or {}).items())},
        "config": to_dict(config),
        "rows": [[r.fact, list(r.ids), r.last, list(r.labels), r.preserve] for r in rows],
    }
    progress.start("targets" if site is None else f"targets {site}", count, "facts")
    entry = job.cache.load("targets", key)
    if entry is not None:
        targets = Targets(layer, **{n: entry.tensors[n] for n in ("delta", "norm", "loss", "nll")})
        progress.advance(count)
    else:
        targets = optimise(em, rows, count, layer, config, site=site, factors=factors, progress=progress)
        tensors = {n: getattr(targets, n) for n in ("delta", "norm", "loss", "nll")}
        job.cache.save("targets", key, tensors, {})
    progress.finish(f"mean loss {float(targets.loss.mean()):.3f}")
    return targets
