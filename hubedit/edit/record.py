"""What hubedit.json says about how a patch was made: enough to make it again.

No path of this machine gets into it: a local base, corpus or facts file is its own name, and what
identifies it is a hash.
"""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from math import isfinite
from typing import TYPE_CHECKING, Any

import torch

import hubedit
from hubedit.config import EditConfig, to_dict
from hubedit.edit.balance import alphas
from hubedit.edit.corpus import corpus_key, needed_tokens
from hubedit.edit.result import Edit
from hubedit.edit.search import Trial
from hubedit.edit.trace_result import TraceResult
from hubedit.model.editable import EditableModel
from hubedit.presets import METHODS

if TYPE_CHECKING:
    from hubedit.edit.spread import Budget

_PACKAGES = ("torch", "transformers", "tokenizers", "peft", "safetensors", "huggingface_hub", "numpy")
# a path that leads out of the current folder
_OUTSIDE = re.compile(r"[/~]|\.\.([/\\]|$)|[A-Za-z]:[\\/]")


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
        "alpha_from": _alpha_from(edit, config, em.num_layers),
        "sites": {em.module_name(site): _site(edit, site) for site in sorted(edit.reports)},
        "search": _search(edit),
        "targets": _targets(edit),
        "repaired": edit.repaired,
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
        "source": corpus_key(config.stats, em),
    }


def base_name(em: EditableModel) -> str:
    """How records and cards call the base: the Hub's name, or the name of the local folder."""
    return em.ref if em.commit else em.path.resolve().name


def portable(word: str) -> str:
    """A word of the command line without the folders of this machine that stand before the last name."""
    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    if not _OUTSIDE.match(value):
        return word
    last = re.split(r"[/\\]", value.rstrip("/\\"))[-1]
    return f"{option}{equals}{last}"


def versions() -> dict[str, str]:
    """Versions of Python and of every package that the numbers depend on."""
    found = {"hubedit": hubedit.__version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def device_name(device: torch.device) -> str:
    """`cpu`, `mps`, or `cuda (NVIDIA H100 ...)`."""
    if device.type != "cuda":
        return device.type
    return f"cuda ({torch.cuda.get_device_name(device)})"


def peak_memory(device: torch.device) -> dict[str, int]:
    """Largest memory so far in bytes: of this process ("process"), and of its GPU tensors ("device")."""
    peak: dict[str, int] = {}
    if sys.platform != "win32":
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak["process"] = used if sys.platform == "darwin" else used * 1024
    if device.type == "cuda":
        peak["device"] = torch.cuda.max_memory_allocated(device)
    return peak


def _layers_from(config: EditConfig) -> str:
    """ "given", "method" where it has a depth of its own, or "trace"."""
    if config.layers != "auto":
        return "given"
    return "method" if METHODS[config.method].depth else "trace"


def _alpha_from(edit: Edit, config: EditConfig, num_layers: int) -> str:
    """ "given", "method" where it has no such setting, "trace", or "search" where a trial with another
    share won."""
    if "alpha" not in METHODS[config.method].settings:
        return "method"
    if config.alpha in ("auto", "per-layer") and edit.trace is not None:
        attention, mlp = edit.trace.ie_prob["attention"], edit.trace.ie_prob["mlp"]
        source = "trace"
    else:
        attention = mlp = (0.0,) * num_layers
        source = "given"
    if not edit.alpha:
        return "given"
    asked = alphas(attention, mlp, edit.layers, config.alpha)
    same = all(abs(edit.alpha[layer] - asked[layer]) < 1e-9 for layer in edit.layers)
    return source if same else "search"


def method_record(config: EditConfig) -> dict[str, Any]:
    """The method, and what only some have. Trained rows belong to no single fact (`hubedit.patch.owners`)."""
    settings = METHODS[config.method].settings
    found: dict[str, Any] = {
        name: getattr(config, name) for name in ("order", "null_space") if name in settings
    }
    found = {"method": config.method, **found}
    return {**found, "rows": {}} if METHODS[config.method].trained else found


def _search(edit: Edit) -> dict[str, Any] | None:
    if edit.found is None:
        return None
    return {
        "budget": _budget(edit.found.trial.budget),
        "trials": [_trial(trial) for trial in edit.found.trials],
    }


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
        "budget": edit.found.trial.budget.of(site) if edit.found else None,
        "drift": report.drift,
        "reached": report.reached,
        "norm": report.norm,
        "weight_norm": report.weight_norm,
        "relative_norm": report.norm / report.weight_norm if report.weight_norm else None,
    }


def _budget(budget: Budget) -> dict[str, float]:
    return {"attention": budget.attention, "mlp": budget.mlp, "lambda": budget.lam}


def _trial(trial: Trial) -> dict[str, Any]:
    judged = trial.judgement
    return {
        "alpha": {str(layer): share for layer, share in trial.alpha.items()},
        "budget": _budget(trial.budget),
        "success": judged.success,
        "locality": judged.locality,
        "others": judged.others,
        "text": judged.text,
        "score": judged.score if isfinite(judged.score) else None,
    }


def _trace(trace: TraceResult | None, em: EditableModel) -> dict[str, Any] | None:
    return None if trace is None else {**trace.to_json(), "model": base_name(em)}
