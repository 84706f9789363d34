"""Stages that every method shares: what is measured once on the model, and targets with their cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from hubedit.cache import Cache
from hubedit.config import EditConfig, StatsConfig, TargetConfig, to_dict
from hubedit.edit.asked import PARTS, Asked, prepare
from hubedit.edit.balance import MOST_LAYERS, alphas, parse_layers
from hubedit.edit.corpus import SELF, corpus_key, holdout_rows, needed_tokens, token_rows
from hubedit.edit.depth import last_layer, window
from hubedit.edit.others import READ, READ_EACH
from hubedit.edit.probes import TextState, read_text
from hubedit.edit.result import Clock
from hubedit.edit.rows import Row
from hubedit.edit.stats import second_moments
from hubedit.edit.targets import Targets, optimise
from hubedit.edit.trace import trace
from hubedit.edit.trace_result import TraceResult
from hubedit.errors import ConfigError
from hubedit.facts import Fact
from hubedit.linalg import Moments
from hubedit.model.editable import EditableModel
from hubedit.model.sites import Site
from hubedit.presets import METHODS
from hubedit.progress import Progress

TEXT_ROWS = 48
_FORMAT = 5  # goes up when a change in the survey or in the trial of depth gives other results


@dataclass(frozen=True)
class Ground:
    """What is measured once, on the model before any of the facts is edited, for all batches.

    `alpha`: attention's share at each layer; `moments`: of every site that may be edited; `text`: token rows
    held out of the statistics; `corpus`: token rows in which other subjects are looked for, and `text`;
    `clean`: the model's predictions on `text`; `free`: the directions (d_in, m) that inputs of a site hardly
    use, kept from batch to batch by methods that write into them alone.
    """

    traced: TraceResult | None
    layers: tuple[int, ...]
    alpha: Mapping[int, float]
    moments: Mapping[Site, Moments]
    text: Sequence[Sequence[int]]
    corpus: Sequence[Sequence[int]]
    clean: TextState
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
    corpus: list[Sequence[int]] = []
    if not method.published:
        seen = needed_tokens(em, config.stats)
        if config.stats.corpus == SELF:  # behind them a file has the text that is held out
            seen = max(seen, READ_EACH * len(facts))
        corpus = [*token_rows(em, config.stats, min(seen, READ), cache, progress), *text]
    clean = read_text(em, text)
    clock.lap("statistics")
    return Ground(traced, layers, alpha, moments, text, corpus, clean)


def unseen_rows(
    em: EditableModel, stats: StatsConfig, cache: Cache, progress: Progress
) -> tuple[list[list[int]], bool]:
    """Token rows to measure perplexity and divergence on, and whether an edit with this text used them.

    They stand behind the rows that an edit is searched and polished on; a corpus that ends before gives
    those instead.
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

    A method of one layer takes the one of the largest MLP effect.
    """
    method = METHODS[config.method]
    setting = config.alpha if "alpha" in method.settings else "0"
    traced = None
    if (config.layers == "auto" and not method.depth) or setting in ("auto", "per-layer"):
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
        # every method gets the layers that the joint method would: what differs is the method
        depth = TargetConfig() if method.published else config.targets
        key = {
            "format": _FORMAT,
            "model": em.identity,
            "dtype": str(em.dtype),
            "device": em.device.type,
            "facts": [_asked(f) for f in facts],
            "mlp": mlp,
            "targets": to_dict(depth),
        }
        entry = cache.load("depth", key)
        if entry is None:
            last, _ = last_layer(em, facts, mlp, depth, progress)
            cache.save("depth", key, {}, {"layer": last})
        else:
            last = int(entry.record["layer"])
        layers = window(mlp, last, MOST_LAYERS)
    check_one_layer(config, layers)
    return traced, layers, alphas(attention, mlp, layers, setting)


def check_one_layer(config: EditConfig, layers: Sequence[int]) -> None:
    """Raises ConfigError where a method of one layer is given several."""
    if METHODS[config.method].one_layer and len(layers) != 1:
        raise ConfigError(
            f"{config.method} edits one layer, and --layers gives {len(layers)}",
            f"give one, such as --layers {layers[0]}, or leave it out",
        )


def cached_survey(job: Job) -> Asked:
    """What is asked, from the cache or from the model."""
    em, config, progress = job.em, job.config, job.progress
    key = {
        "format": _FORMAT,
        "model": em.identity,
        "dtype": str(em.dtype),
        "device": em.device.type,
        "facts": [_asked(f) for f in job.facts],
        "kept": [_asked(f) for f in job.kept],
        "targets": to_dict(config.targets),
        "prefer": config.prefer,
        "seed": config.seed,
        "corpus": corpus_key(config.stats, em),
        # more text is read for many facts, and for --tokens
        "read": sum(map(len, job.ground.corpus)),
    }
    progress.start("survey", PARTS, "parts")
    entry = job.cache.load("survey", key)
    if entry is not None:
        asked = Asked.from_json(entry.record["asked"])
        progress.advance(PARTS)
    else:
        asked = prepare(em, job.facts, config, job.ground.corpus, job.ground.text, job.kept, progress.advance)
        job.cache.save("survey", key, {}, {"asked": asked.to_json()})
    alone = len(job.facts) - len({r.fact for r in asked.told})
    bare = f"; {alone} of {len(job.facts)} facts in their own words alone" if alone and config.targets.told > 0 else ""
    progress.finish(f"{len(asked.all_rows) + len(asked.others)} prompts{bare}")
    return asked


def _asked(fact: Fact) -> list[str]:
    """What a survey reads of a fact."""
    return [fact.prompt, fact.subject, fact.target]


def cached_targets(job: Job, rows: Sequence[Row], count: int, layer: int) -> Targets:
    """Targets of `count` places, whose numbers the rows bear, from the cache, else optimised now. The key
    holds every row, so every input."""
    em, config, progress = job.em, job.config, job.progress
    key = {
        "model": em.identity,
        "dtype": str(em.dtype),
        "device": em.device.type,
        "layer": layer,
        "config": to_dict(config.targets),
        "rows": [[r.fact, list(r.ids), r.last, list(r.labels), r.preserve] for r in rows],
        "corpus": corpus_key(config.stats, em),
    }
    progress.start("targets", count, "facts" if count == len(job.facts) else "subjects")
    entry = job.cache.load("targets", key)
    if entry is not None:
        targets = Targets(layer, **{n: entry.tensors[n] for n in ("delta", "norm", "loss", "nll")})
        progress.advance(count)
    else:
        targets = optimise(em, rows, count, layer, config.targets, progress=progress)
        tensors = {n: getattr(targets, n) for n in ("delta", "norm", "loss", "nll")}
        job.cache.save("targets", key, tensors, {})
    progress.finish(f"mean loss {float(targets.loss.mean()):.3f}")
    return targets
