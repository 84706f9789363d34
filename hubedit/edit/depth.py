"""How deep the last edited layer may lie: where a change at the subject's last token still brings the target.

The trace says which layer holds the most; it does not say up to which layer a *new* value is still read.
That is measured: a few facts are optimised for a few steps at every candidate, and the likelihood
decides. Fixed numbers from another model's preset fail here (docs/experiments.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hubedit.config import TargetConfig
from hubedit.edit.rows import edit_rows
from hubedit.edit.targets import optimise
from hubedit.facts import Fact
from hubedit.model.editable import EditableModel
from hubedit.progress import Progress

FACTS = 16
STEPS = 25
HOPELESS = 3.0
"""Nats: where even the best candidate stays above it, the figures say little, and the best one is taken."""
REACH = 3
"""Candidates: the layer of the largest effect, one before it, and so many after it."""


def candidates(mlp: Sequence[float]) -> list[int]:
    """Layers worth trying as the last edited one, from the MLP effects of a trace."""
    n = len(mlp)
    peak = max(range(n), key=lambda layer: mlp[layer]) if max(mlp) > 0 else n // 3
    # after the last layer no other token can read the change any more
    return list(range(max(0, min(peak, n - 2) - 1), max(min(n - 2, peak + REACH), 0) + 1))


def last_layer(
    em: EditableModel, facts: Sequence[Fact], mlp: Sequence[float], config: TargetConfig, progress: Progress
) -> tuple[int, dict[int, float]]:
    """The deepest candidate that brings the target about as well as the best one, and every figure.

    The figure is the mean over facts of the negative log-likelihood reached, each capped at 5 nats.
    """
    some = [facts[round(i * (len(facts) - 1) / max(FACTS - 1, 1))] for i in range(min(FACTS, len(facts)))]
    if len(facts) <= FACTS:
        some = list(facts)
    rows = edit_rows(em, some, ())
    short = replace(config, steps=STEPS, kl=0.0)
    reached: dict[int, float] = {}
    whole: dict[int, float] = {}
    layers = candidates(mlp)
    progress.start("depth", len(layers), "layers")
    for layer in layers:
        nll = optimise(em, rows, len(some), layer, short).nll
        reached[layer], whole[layer] = float(nll.clamp_max(5).mean()), float(nll.mean())
        progress.advance()
    limit = min(reached.values()) * 1.25 + 0.05
    chosen = max(layer for layer, nll in reached.items() if nll <= limit)
    if min(reached.values()) > HOPELESS:  # the cap makes all alike; what lies beyond it still tells
        chosen = min(whole, key=lambda layer: whole[layer])
    progress.finish(f"layer {chosen}")
    return chosen, reached


def window(mlp: Sequence[float], last: int, most: int) -> tuple[int, ...]:
    """The edited layers that end at `last`: back to the first layer with at least a fifth of the largest
    effect, at most `most` layers."""
    peak = max(mlp)
    strong = [layer for layer in range(last + 1) if mlp[layer] >= 0.2 * peak and mlp[layer] > 0]
    first = min(strong, default=last)
    return tuple(range(max(first, last - most + 1), last + 1))
