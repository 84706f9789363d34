"""The two figures of a trace, as PNG bytes. matplotlib is imported when one is drawn."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hubedit.edit.trace_result import CATEGORIES, KINDS, TraceResult
from hubedit.errors import HubEditError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NAMES = {"attention": "Attention (o_proj)", "mlp": "MLP (down_proj)"}
# Okabe and Ito's orange and blue: told apart under every kind of colour blindness, and in print by shape
_COLOURS = {"attention": "#D55E00", "mlp": "#0072B2"}
_MARKERS = {"attention": "o", "mlp": "s"}


def heat_maps(trace: TraceResult) -> bytes:
    """Kind of token x layer, recovered probability, for both modules side by side on one scale.

    Raises HubEditError when only the subject's last token was traced.
    """
    if not trace.heat_prob:
        raise HubEditError("this trace has no token x layer map", "trace with --tokens all")
    shown = [c for c in range(len(CATEGORIES)) if trace.heat_prob["mlp"][c][0] is not None]
    values = {kind: [_numbers(trace.heat_prob[kind][c]) for c in shown] for kind in KINDS}
    top = max(max(max(row) for row in rows) for rows in values.values())
    low = min(0.0, *(min(min(row) for row in rows) for rows in values.values()))
    figure = _figure(2.4 + 0.28 * max(8, min(len(trace.layers), 32)) * 2, 1.7 + 0.38 * len(shown))
    axes = figure.subplots(1, 2, sharey=True)
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
    figure.colorbar(image, ax=list(axes), label="indirect effect (probability)", pad=0.02)
    figure.suptitle(_title(trace), fontsize=11)
    return _png(figure)


def layerwise(trace: TraceResult) -> bytes:
    """Indirect effect at the subject's last token per layer, for both modules, with one standard error.

    Left the probability, right the logit difference.
    """
    figure = _figure(10, 3.9)
    panels = (
        ("probability of the answer", trace.ie_prob, trace.se_prob),
        ("logit difference, answer against foil", trace.ie_logit, trace.se_logit),
    )
    for axis, (label, effects, errors) in zip(figure.subplots(1, 2), panels, strict=True):
        axis.axhline(0, color="0.6", linewidth=0.8)
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
        axis.grid(axis="y", color="0.9")
        axis.spines[["top", "right"]].set_visible(False)
        _layer_ticks(axis, trace.layers, trace.layers)
        axis.legend(frameon=False, fontsize=9)
    figure.suptitle(f"Last subject token: {_title(trace)}", fontsize=11)
    return _png(figure)


def _figure(width: float, height: float) -> Figure:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise HubEditError("figures need matplotlib", "pip install matplotlib") from error
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)  # no pyplot: no global state, no window system
    return figure


def _png(figure: Figure) -> bytes:
    target = io.BytesIO()
    # without the software's version the same trace gives the same bytes
    figure.savefig(target, format="png", dpi=150, metadata={"Software": None})
    return target.getvalue()


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
