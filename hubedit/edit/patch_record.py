"""What hubedit.json says about how a patch was made: enough to make it again.

No path of this machine gets into it: a local base, corpus or facts file is its own name, and what
identifies it is a hash.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from typing import Any

from hubedit.config import EditConfig, to_dict
from hubedit.edit.locate.trace_result import TraceResult
from hubedit.edit.result import Edit
from hubedit.edit.statistics.second_moments import source_key
from hubedit.edit.statistics.size import corpus_tokens, needed_tokens
from hubedit.environment import base_name, device_name, peak_memory, portable, versions
from hubedit.model.editable import EditableModel
from hubedit.presets import METHODS


def edit_record(
    em: EditableModel,
    edit: Edit,
    config: EditConfig,
    *,
    base: Mapping[str, Any],
    statistics: Mapping[str, Any],
    seconds: Mapping[str, float],
    command: Sequence[str] = (),
) -> dict[str, Any]:
    """Content of hubedit.json as plain JSON data, without what `Patch` adds (schema, ranks, facts' hash).

    `base`: of `hubedit.patch.base_record`; `statistics`: of `statistics_record`; `seconds`: by stage;
    `command`: the words of the command line.
    """
    settings = to_dict(config)
    settings["stats"]["corpus"] = portable(config.stats.corpus)
    return {
        "base": {**base, "ref": base_name(em)},
        "batch_size": config.batch_size,
        **method_record(config),
        "layers": list(edit.layers),
        "layers_from": _layers_from(config),
        "alpha": {str(layer): edit.alpha[layer] for layer in edit.layers if layer in edit.alpha},
        "alpha_from": _alpha_from(config),
        "sites": {em.module_name(site): _site(edit, site) for site in sorted(edit.reports)},
        "targets": _targets(edit),
        "perplexity": {"before": edit.perplexity_before, "after": edit.perplexity_after},
        "statistics": dict(statistics),
        "trace": _trace(edit.trace, em),
        "config": settings,
        "seed": config.seed,
        "seeds": {"edit": config.seed, "trace": config.trace.seed, "statistics": config.stats.seed},
        "packages": versions(),
        "device": device_name(em.device),
        "dtype": str(em.dtype).removeprefix("torch."),
        "platform": f"{platform.system()} {platform.machine()}",
        "seconds": sum(seconds.values()),
        "seconds_by_stage": dict(seconds),
        "peak_memory": peak_memory(em.device),
        "command": [portable(word) for word in command],
    }


def statistics_record(em: EditableModel, config: EditConfig) -> dict[str, Any]:
    """Which text the statistics come from. Raises ConfigError for a corpus that cannot be used.

    Call it before the long work: of a Hub data set it asks the Hub for the commit.
    """
    tokens = needed_tokens(em, config.stats)
    return {
        "corpus": portable(config.stats.corpus),
        "tokens": tokens,
        "names": round(1 - corpus_tokens(em, config.stats) / tokens, 2),
        "source": source_key(config.stats, em),
    }


def _layers_from(config: EditConfig) -> str:
    """ "given", "method" where it has a depth of its own, "trace" for others of one layer, or "depth"."""
    if config.layers != "auto":
        return "given"
    method = METHODS[config.method]
    return "method" if method.depth else "trace" if method.one_layer else "depth"


def _alpha_from(config: EditConfig) -> str:
    """ "given", "trace", or "method" where it has no such setting."""
    if not METHODS[config.method].balanced:
        return "method"
    return "trace" if config.alpha in ("auto", "per-layer") else "given"


def method_record(config: EditConfig) -> dict[str, Any]:
    """The method, and what only some have. Trained rows belong to no single fact (`hubedit.patch.owners`)."""
    settings = METHODS[config.method].settings
    found: dict[str, Any] = {"method": config.method}
    if "null_space" in settings:
        found["null_space"] = config.null_space
    return {**found, "rows": {}} if METHODS[config.method].trained else found


def _targets(edit: Edit) -> dict[str, Any] | None:
    targets = edit.targets
    if targets is None:
        return None
    return {
        "layer": targets.layer,
        "loss_mean": float(targets.loss.mean()),
        "nll_mean": float(targets.nll.mean()),
        "relative_size_mean": float((targets.delta.norm(dim=1) / targets.norm).mean()),
    }


def _site(edit: Edit, site: Any) -> dict[str, Any]:
    report = edit.reports[site]
    return {
        "layer": site.layer,
        "kind": site.kind,
        "lambda": report.lam,
        "drift": report.drift,
        "reached": report.reached,
        "norm": report.norm,
        "weight_norm": report.weight_norm,
        "relative_norm": report.norm / report.weight_norm if report.weight_norm else None,
    }


def _trace(trace: TraceResult | None, em: EditableModel) -> dict[str, Any] | None:
    return None if trace is None else {**trace.to_json(), "model": base_name(em)}
