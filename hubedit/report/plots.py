"""The figures of a patch: which can be drawn from its record and its report, and drawing them.

matplotlib is imported when one is drawn, not to name them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from hubedit.edit.locate.trace_result import TraceResult
from hubedit.errors import HubEditError
from hubedit.report.about import norms
from hubedit.report.draw import BLUE, ORANGE, figure
from hubedit.report.evidence import relations
from hubedit.report.figures import heat_map_figure, layerwise_figure
from hubedit.report.measures import Json, outcomes, shifts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES = ("heatmap", "layerwise", "norms", "relations", "probability")
_MOST_RELATIONS = 24
_LOWEST = 1e-6
# more marks than this are one picture inside an SVG, which would grow without end
_MOST_MARKS = 400
_FAINT = {"color": "black", "alpha": 0.12}


@dataclass(frozen=True)
class Plot:
    """`name`: one of NAMES, and of its file in plots/; `caption`: one sentence; `draw`: makes it."""

    name: str
    caption: str
    draw: Callable[[], Figure]

    @property
    def file(self) -> str:
        """Its place in a patch folder."""
        return f"plots/{self.name}.png"


def plots(record: Json, report: Json, *, with_facts: bool = True) -> tuple[Plot, ...]:
    """Every figure that the data is there for. Without facts none that names their relations."""
    made = []
    trace = _trace(record)
    if trace is not None and trace.heat_prob:
        caption = "Causal trace: how much of the answer's probability comes back, by kind of token and layer."
        made.append(Plot("heatmap", caption, partial(heat_map_figure, trace)))
    if trace is not None:
        caption = (
            "Causal trace: indirect effect of attention and of the MLP at the subject's last token, by layer."
        )
        made.append(Plot("layerwise", caption, partial(layerwise_figure, trace)))
    relative, sizes = norms(record)
    if sizes:
        caption = f"Size of the change in each edited weight{', relative to the weight' if relative else ''}."
        made.append(Plot("norms", caption, partial(norms_figure, sizes, relative)))
    rows = relations(report) if with_facts else []
    if rows:
        caption = "Success by relation; the number of facts is written behind each bar."
        made.append(Plot("relations", caption, partial(relations_figure, rows)))
    pairs = shifts(report)
    if pairs:
        done = [o.get("success") for o in outcomes(report)]
        marks = [m is not False for m in done] if len(done) == len(pairs) else [True] * len(pairs)
        caption = "Probability of each fact's new answer, before and after; above the line it rose."
        made.append(Plot("probability", caption, partial(shift_figure, pairs, marks)))
    return tuple(made)


def norms_figure(sizes: Sequence[tuple[int, str, float]], relative: bool) -> Figure:
    """Bars: norm of the change (Frobenius) of each site, by layer and module."""
    layers = sorted({layer for layer, _, _ in sizes})
    made = figure(min(max(4.8, 2.4 + 0.5 * len(layers)), 12), 3.2)
    axis = made.subplots()
    both = len({kind for _, kind, _ in sizes}) > 1
    for shift, (kind, name, colour) in zip(
        (-0.2, 0.2),
        (("attention", "Attention (o_proj)", ORANGE), ("mlp", "MLP (down_proj)", BLUE)),
        strict=True,
    ):
        own = {layer: norm for layer, k, norm in sizes if k == kind}
        if own:
            places = [layers.index(layer) + (shift if both else 0) for layer in own]
            axis.bar(places, list(own.values()), width=0.38, color=colour, label=name)
    step = -(-len(layers) // 24)
    axis.set_xticks(range(0, len(layers), step), [str(layer) for layer in layers[::step]])
    axis.set_xlabel("layer")
    axis.set_ylabel("|change| / |weight|" if relative else "|change|")
    made.legend(frameon=False, fontsize=9, loc="outside upper center", ncols=2)
    _plain(axis, "y")
    return made


def relations_figure(rows: Sequence[tuple[str, float, int]]) -> Figure:
    """Horizontal bars: share of facts that took, by relation; at most 24, the most frequent."""
    shown = list(rows[:_MOST_RELATIONS])[::-1]
    made = figure(7.2, 1.1 + 0.28 * len(shown))
    axis = made.subplots()
    axis.barh(range(len(shown)), [100 * share for _, share, _ in shown], color=BLUE, height=0.7)
    for place, (_, share, n) in enumerate(shown):
        axis.text(100 * share + 1, place, f"{100 * share:.0f} % of {n:,}", va="center", fontsize=8)
    axis.set_yticks(range(len(shown)), [name for name, _, _ in shown], fontsize=8)
    axis.set_xlim(0, 125)
    axis.set_xticks(range(0, 101, 20))
    axis.set_xlabel("facts that took, %")
    if len(rows) > len(shown):
        axis.set_title(f"the {len(shown)} most frequent of {len(rows):,} relations", fontsize=9)
    _plain(axis, "x")
    return made


def shift_figure(pairs: Sequence[tuple[float, float]], done: Sequence[bool]) -> Figure:
    """Scatter, both axes logarithmic: probability of the target before and after, one mark a fact."""
    made = figure(5.2, 4.4)
    axis = made.subplots()
    axis.plot([_LOWEST, 1], [_LOWEST, 1], color="black", alpha=0.35, linewidth=0.8)
    for wanted, colour, marker, name in ((True, BLUE, "o", "took"), (False, ORANGE, "x", "did not take")):
        own = [pair for pair, ok in zip(pairs, done, strict=True) if ok is wanted]
        if own:
            x, y = ([max(value, _LOWEST) for value in column] for column in zip(*own, strict=True))
            axis.scatter(
                x,
                y,
                s=22,
                color=colour,
                marker=marker,
                alpha=0.7,
                linewidths=1.2,
                label=name,
                rasterized=len(own) > _MOST_MARKS,
            )
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlim(_LOWEST * 0.7, 1.5)
    axis.set_ylim(_LOWEST * 0.7, 1.5)
    ticks = [10.0**n for n in range(-6, 1)]
    # matplotlib's own labels of powers are formulas
    for ruler in (axis.xaxis, axis.yaxis):
        ruler.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
        ruler.set_ticks([], minor=True)
    axis.set_xlabel("probability before")
    axis.set_ylabel("probability after")
    if False in done:
        axis.legend(frameon=False, fontsize=9, loc="lower right")
    _plain(axis, "both")
    return made


def _trace(record: Json) -> TraceResult | None:
    trace = record.get("trace")
    if not isinstance(trace, Mapping):
        return None
    try:
        return TraceResult.from_json(trace)
    except HubEditError:  # of another version: the record stands, the figure cannot be drawn
        return None


def _plain(axis: Any, grid: str) -> None:
    axis.set_axisbelow(True)
    axis.grid(axis=grid, **_FAINT)
    axis.spines[["top", "right"]].set_visible(False)
