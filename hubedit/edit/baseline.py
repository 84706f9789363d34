"""What is measured once, on the model before any of the facts is edited, for all batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hubedit.cache import Cache, digest
from hubedit.config import EditConfig
from hubedit.edit.locate.alpha import alphas
from hubedit.edit.locate.layers import check_one_layer, untraced_layers
from hubedit.edit.locate.trace import trace
from hubedit.edit.locate.trace_result import TraceResult
from hubedit.edit.result import Clock
from hubedit.edit.solve.null_space import free_bases, threshold
from hubedit.edit.solve.site_report import solve_device
from hubedit.edit.statistics.corpus import checked_rows
from hubedit.edit.statistics.second_moments import second_moments
from hubedit.facts import Fact
from hubedit.linalg import Moments, output_power
from hubedit.model.editable import EditableModel
from hubedit.model.memory import release
from hubedit.model.score import perplexity
from hubedit.model.sites import Site
from hubedit.presets import METHODS
from hubedit.progress import Progress


@dataclass(frozen=True)
class Baseline:
    """The sites to edit, and the model's behaviour before the edit.

    `trace`: causal tracing, None where neither the layers nor alpha come from it; `layers`: the edited ones;
    `alpha`: attention's share at each of them; `moments`: E[k k^T] (d_in, d_in) of every site that may be
    edited; `power`: the mean squared output that each of these has by them; `text`: token rows that the
    statistics have not read; `perplexity`: on `text`; `null_spaces`: (d_in, m) by site, the directions that
    its inputs hardly use, for a method that writes into them alone.
    """

    trace: TraceResult | None
    layers: tuple[int, ...]
    alpha: Mapping[int, float]
    moments: Mapping[Site, Moments]
    power: Mapping[Site, float]
    text: Sequence[Sequence[int]]
    perplexity: float
    null_spaces: Mapping[Site, Tensor]


def measure(
    em: EditableModel,
    facts: Sequence[Fact],
    config: EditConfig,
    cache: Cache,
    progress: Progress,
    clock: Clock,
) -> Baseline:
    """Traces and chooses the sites, reads the statistics. Raises ConfigError for options that do not fit."""
    result, layers, alpha = edited_layers(em, facts, config, cache, progress)
    clock.lap("trace")
    method = METHODS[config.method]
    sites = [Site(n, "mlp") for n in layers]
    if method.attention:
        # LoRA has no share, and trains both sites
        sites += [Site(n, "attention") for n in layers if alpha[n] > 0 or not method.balanced]
    moments = second_moments(em, sites, config.stats, cache, progress)
    power = {site: _power(em, site, found.matrix) for site, found in moments.items()}
    bound = threshold(config)
    null_spaces = free_bases(em, moments, bound) if bound is not None else {}
    text = checked_rows(em, config.stats, cache, progress)
    clean = _perplexity(em, text, cache, progress)
    release(em.device)
    clock.lap("statistics")
    return Baseline(result, layers, alpha, moments, power, text, clean, null_spaces)


def _perplexity(em: EditableModel, text: Sequence[Sequence[int]], cache: Cache, progress: Progress) -> float:
    """Of the model before the edit, from the cache where it is there: with a vocabulary of 262,144 entries it
    takes seconds."""
    rows = digest([list(row) for row in text])
    key = {"model": em.identity, "dtype": str(em.dtype), "device": em.device.type, "text": rows}
    entry = cache.load("perplexity", key)
    if entry is not None:
        return float(entry.tensors["perplexity"])
    progress.start("measuring perplexity before")
    found = perplexity(em, text)
    progress.finish()
    cache.save("perplexity", key, {"perplexity": torch.tensor(found, dtype=torch.float64)}, {})
    return found


def _power(em: EditableModel, site: Site, moment: Tensor) -> float:
    device = solve_device(em)
    return output_power(em.weight(site).to(device), moment.to(device, torch.float64))


def edited_layers(
    em: EditableModel, facts: Sequence[Fact], config: EditConfig, cache: Cache, progress: Progress
) -> tuple[TraceResult | None, tuple[int, ...], dict[int, float]]:
    """The trace, the edited layers and attention's share at each; traces only where one of them asks for it.

    A method of one layer takes the one of the largest MLP effect, the others those that depths stand for
    (`default_layers`). Raises ConfigError for layers that the model or the method does not have.
    """
    method = METHODS[config.method]
    setting = config.alpha if method.balanced else "0"
    by_trace = config.layers == "auto" and method.one_layer and not method.depth
    result = None
    if by_trace or setting in ("auto", "per-layer"):
        result = trace(em, facts, replace(config.trace, tokens="subject_last"), cache, progress)
    attention = list(result.ie_prob["attention"]) if result else [0.0] * em.num_layers
    mlp = list(result.ie_prob["mlp"]) if result else [0.0] * em.num_layers
    layers = untraced_layers(config, em.num_layers)
    if not layers:
        # after the last layer no other token can read the change any more
        layers = (max(range(max(em.num_layers - 1, 1)), key=lambda n: mlp[n]),)
    check_one_layer(config, layers)
    return result, layers, alphas(attention, mlp, layers, setting)
