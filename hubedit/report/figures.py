"""The two figures of a trace. matplotlib is imported when one is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hubedit.edit.locate.trace_result import CATEGORIES, KINDS, TraceResult
from hubedit.errors import HubEditError
from hubedit.report.draw import BLUE, ORANGE, figure, png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NAMES = {"attention": "Attention (o_proj)", "mlp": "MLP (down_proj)"}
_COLOURS = {"attention": ORANGE, "mlp": BLUE}
# distinct in print as well
_MARKERS = {"attention": "o", "mlp": "s"}


def heat_maps(trace: TraceResult) -> bytes:
    """`heat_map_figure` as PNG."""
    return png(lambda: heat_map_figure(trace))


def layerwise(trace: TraceResult) -> bytes:
    """`layerwise_figure` as PNG."""
    return png(lambda: layerwise_figure(trace))


def heat_map_figure(trace: TraceResult) -> Figure:
    """Kind of token x layer, recovered probability, for both modules side by side on one scale.

    Raises HubEditError when only the subject's last token was traced.
    """
    if not trace.heat_prob:
        raise HubEditError("this trace has no token x layer map", "trace with --tokens all")
    shown = [c for c in range(len(CATEGORIES)) if trace.heat_prob["mlp"][c][0] is not None]
    values = {kind: [_numbers(trace.heat_prob[kind][c]) for c in shown] for kind in KINDS}
    top = max(max(max(row) for row in rows) for rows in values.values())
    low = min(0.0, *(min(min(row) for row in rows) for rows in values.values()))
    made = figure(2.4 + 0.28 * max(8, min(len(trace.layers), 32)) * 2, 1.7 + 0.38 * len(shown))
    axes = made.subplots(1, 2, sharey=True)
    image: Any = None
    for axis, kind in zip(axes, KINDS, strict=True):
        image = axis.imshow(
            values[kind],
            aspect="auto",
            cmap="cividis",
            vmin=low,
            vmax=max(top, 1e-6),
            interpolation="nearest",
        )
        axis.set_title(_NAMES[kind], fontsize=10)
        axis.set_xlabel(_layer_label(trace))
        _layer_ticks(axis, trace.layers)
    axes[0].set_yticks(range(len(shown)), [CATEGORIES[c] for c in shown])
    made.colorbar(image, ax=list(axes), label="indirect effect (probability)", pad=0.02)
    made.suptitle(_title(trace), fontsize=11)
    return made


def layerwise_figure(trace: TraceResult) -> Figure:
    """Indirect effect at the subject's last token per layer, for both modules, with one standard error.

    Left the probability, right the logit difference.
    """
    made = figure(10, 3.9)
    panels = (
        ("probability of the answer", trace.ie_prob, trace.se_prob),
        ("logit difference, answer against foil", trace.ie_logit, trace.se_logit),
    )
    for axis, (label, effects, errors) in zip(made.subplots(1, 2), panels, strict=True):
        axis.axhline(0, color="black", alpha=0.4, linewidth=0.8)
        for kind in KINDS:
            mean, error = effects[kind], errors[kind]
            axis.plot(
                trace.layers,
                mean,
                color=_COLOURS[kind],
                marker=_MARKERS[kind],
                markersize=4,
                label=_NAMES[kind],
            )
            low = [m - e for m, e in zip(mean, error, strict=True)]
            high = [m + e for m, e in zip(mean, error, strict=True)]
            axis.fill_between(trace.layers, low, high, color=_COLOURS[kind], alpha=0.2, linewidth=0)
        axis.set_xlabel(_layer_label(trace))
        axis.set_ylabel("indirect effect")
        axis.set_title(label, fontsize=10)
        axis.grid(axis="y", color="black", alpha=0.12)
        axis.spines[["top", "right"]].set_visible(False)
        _layer_ticks(axis, trace.layers, trace.layers)
        axis.legend(frameon=False, fontsize=9)
    made.suptitle(f"Last subject token: {_title(trace)}", fontsize=11)
    return made


def _title(trace: TraceResult) -> str:
    name = trace.model.rstrip("/").rsplit("/", 1)[-1]
    return f"{name}, {trace.traced} facts, clean {trace.prob_clean:.2f}, corrupted {trace.prob_corrupted:.2f}"


def _layer_label(trace: TraceResult) -> str:
    window = trace.config.window
    return "layer" if window == 1 else f"centre of {window} restored layers"


def _layer_ticks(axis: Any, layers: Sequence[int], at: Sequence[int] | None = None) -> None:
    """At most about 16 labelled layers; `at` are their positions (default: 0, 1, ...)."""
    step = -(-len(layers) // 16)
    places = at if at is not None else range(len(layers))
    axis.set_xticks(list(places)[::step], [str(layer) for layer in layers[::step]])


def _numbers(row: Sequence[float | None]) -> list[float]:
    return [float("nan") if x is None else x for x in row]
