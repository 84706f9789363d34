"""Published settings for single models, as data: one row a model.

Layers, steps, weights and lambda are those of MEMIT (Meng et al. 2023) as published for these models;
alpha is where the authors of IntAttn-Edit find their best results. A preset fixes lambda and skips the
search: it repeats a paper's setting. hubedit's own defaults follow from the model instead, because fixed
numbers carry over badly (docs/experiments.md).
"""

from __future__ import annotations

from dataclasses import replace

from hubedit.config import EditConfig, TargetConfig
from hubedit.errors import ConfigError

# MEMIT preserves one prompt, "{subject} is a". Its learning rates (0.5, Llama 0.1) are absolute; hubedit's
# `step` is relative to the size of the residual stream, so here the numbers are the same and the unit is not.
_MEMIT = TargetConfig(steps=25, step=0.5, clamp=4.0, decay=1e-3, kl=0.0625, essence=1, told=0, contexts=5)
_LAYERS = "4-8"
_LAMBDA = 15000.0


def _row(alpha: str, targets: TargetConfig) -> EditConfig:
    # MEMIT preserves the corpus alone: what `own` and `told` add is hubedit's
    return EditConfig(layers=_LAYERS, alpha=alpha, lam=_LAMBDA, own=0.0, search=False, targets=targets)


PRESETS: dict[str, EditConfig] = {
    "qwen2.5-7b": _row("0.3", _MEMIT),
    "mistral-7b": _row("0.1", _MEMIT),
    "llama-3-8b": _row("auto", replace(_MEMIT, step=0.1, decay=0.5, clamp=0.75)),
}


def preset(name: str) -> EditConfig:
    """The settings of a name in `PRESETS`, in any case. Raises ConfigError that lists the names."""
    found = PRESETS.get(name.strip().lower())
    if found is None:
        raise ConfigError(f"unknown preset {name!r}", f"known: {', '.join(PRESETS)}")
    return found
