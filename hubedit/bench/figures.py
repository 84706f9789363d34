"""Curves: measures over alpha, and over the number of edits. matplotlib is imported when one is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from hubedit.bench.metrics import (
    BYSTANDERS,
    COST,
    FIRST_AND_LAST,
    FORCED,
    GREEDY,
    NEIGHBOURHOOD,
    Metric,
    tasks,
)
from hubedit.bench.numbers import Line
from hubedit.bench.published import printed_numbers
from hubedit.presets import METHODS
from hubedit.report.draw import BLUE, GREEN, ORANGE, PINK, figure, png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = ("alpha", "edits", "sequence")
"""What the name of every figure begins with."""
_SEQUENCE = (*FIRST_AND_LAST, NEIGHBOURHOOD, BYSTANDERS, COST[0])
_COLOURS = (BLUE, ORANGE, GREEN, PINK, "#56B4E9", "#000000")
_MARKERS = "osD^vP"
_AT_ONCE = ", at once"
_ACROSS = 5  # panels beside each other


def figures(found: Sequence[Line]) -> dict[str, bytes]:
    """PNG by file name: a pair for every model and data set with at least three alphas, and two for every
    model and data set with several numbers of edits, the second where batches followed one another."""
    made: dict[str, bytes] = {}
    sweeps: dict[tuple[str, str, str, int, int], list[Line]] = {}
    sizes: dict[tuple[str, str], list[Line]] = {}
    for line in found:
        if line.alpha and line.numbers:
            key = (line.model, line.data, line.label, line.edits, line.batch_size)
            sweeps.setdefault(key, []).append(line)
        if line.numbers:
            sizes.setdefault((line.model, line.data), []).append(line)
    long = {key: own for key, own in sweeps.items() if sum(line.share is not None for line in own) >= 3}
    for sweep, own in long.items():
        name = _name(*sweep[:3], f"{sweep[3]}-{sweep[4]}" if len({key[3:] for key in long}) > 1 else "")
        title = f"{sweep[2]} on {sweep[0]}, {sweep[1]}"
        made[f"alpha-{name}-forced.png"] = png(partial(alpha_figure, own, FORCED[:3], title))
        made[f"alpha-{name}-greedy.png"] = png(partial(alpha_figure, own, GREEDY, title))
    for place, own in sizes.items():
        if len({line.edits for line in own}) > 1:
            title = f"{place[0]}, {place[1]}"
            if any(GREEDY[-1].key in line.numbers for line in own):
                made[f"edits-{_name(*place)}.png"] = png(partial(edits_figure, own, GREEDY[-1], title))
            if panels_of(own):
                made[f"sequence-{_name(*place)}.png"] = png(partial(sequence_figure, own, title))
    return made


def alpha_figure(own: Sequence[Line], metrics: Sequence[Metric], title: str) -> Figure:
    """Lines over alpha with 95 % bands; published numbers dotted; the traced alpha as an upright line."""
    made = figure(7.6, 4.4)
    axis = made.subplots()
    given = sorted(
        ((share, line) for line in own if (share := line.share) is not None), key=lambda pair: pair[0]
    )
    for place, metric in enumerate(metrics):
        points = [(x, line.numbers[metric.key]) for x, line in given if metric.key in line.numbers]
        if not points:
            continue
        colour, marker = _COLOURS[place % len(_COLOURS)], _MARKERS[place % len(_MARKERS)]
        x = [share for share, _ in points]
        y = [metric.scale * number.mean for _, number in points]
        axis.plot(x, y, color=colour, marker=marker, markersize=4, label=metric.name)
        ends = [end for _, number in points if (end := metric.interval(number)) is not None]
        if len(ends) == len(points):
            low, high = zip(*ends, strict=True)
            axis.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        printed = [
            (share, float(found[metric.key].text))
            for share, line in given
            if metric.key
            in (found := printed_numbers((1, 2), line.model, line.data, line.method, f"{share:g}"))
        ]
        if printed:
            axis.plot(
                *zip(*printed, strict=True), color=colour, linestyle=":", label=f"{metric.name}, published"
            )
    traced = next((line.traced_alpha for line in own if line.traced_alpha is not None), None)
    if traced is not None:
        axis.axvline(traced, color="black", alpha=0.5, linewidth=0.9, linestyle="--")
        axis.text(traced, 1.01, "traced", transform=axis.get_xaxis_transform(), fontsize=8)
    _finish(made, axis, "alpha (share of attention)", "per cent", title)
    return made


def edits_figure(own: Sequence[Line], metric: Metric, title: str) -> Figure:
    """One line a method over the number of edits (logarithmic), bars for 95 % intervals."""
    made = figure(7.6, 4.4)
    axis = made.subplots()
    groups: dict[str, list[Line]] = {}
    for line in own:
        if metric.key in line.numbers:
            batch = _way(line, line.batch_size) if line.batch_size else ""
            groups.setdefault(f"{_run(line)}{batch}", []).append(line)
    for place, (name, group) in enumerate(groups.items()):
        group.sort(key=lambda line: line.edits)
        colour, marker = _COLOURS[place % len(_COLOURS)], _MARKERS[place % len(_MARKERS)]
        x = [line.edits for line in group]
        y = [metric.scale * line.numbers[metric.key].mean for line in group]
        axis.plot(x, y, color=colour, marker=marker, markersize=5, label=name)
        for at, line in zip(x, group, strict=True):
            if (ends := metric.interval(line.numbers[metric.key])) is not None:
                axis.plot([at, at], ends, color=colour, linewidth=1)
    axis.set_xscale("log")
    ticks = sorted({line.edits for line in own})
    axis.xaxis.set_ticks(ticks, [str(tick) for tick in ticks])
    axis.xaxis.set_ticks([], minor=True)
    _finish(made, axis, "edits", f"{metric.name}, per cent", title)
    return made


def sequence_figure(own: Sequence[Line], title: str) -> Figure:
    """Over the number of edits, one line a method and size of batch, dashed where all are edited at once:
    what holds of the newest and the oldest facts, of neighbours and of bystanders, by how much ordinary text
    has become less likely, and what tasks are still solved."""
    panels = panels_of(own)
    down = -(-len(panels) // _ACROSS)
    across = -(-len(panels) // down)
    made = figure(3.4 * across, 3.9 * down)
    runs = list(dict.fromkeys(_run(group[0]) for group in sequences(own).values()))
    axes = made.subplots(down, across, squeeze=False).flatten()
    for axis in axes[len(panels) :]:
        axis.remove()
    for axis, metric in zip(axes, panels, strict=False):
        for name, group in sequences(own).items():
            place = runs.index(_run(group[0]))
            given = [line for line in group if metric.key in line.numbers]
            x = [line.edits for line in given]
            y = [metric.scale * line.numbers[metric.key].mean for line in given]
            colour, marker = _COLOURS[place % len(_COLOURS)], _MARKERS[place // len(_COLOURS) % len(_MARKERS)]
            label = name if metric is panels[0] else "_" + name  # one legend for all panels
            style = "--" if name.endswith(_AT_ONCE) else "-"
            axis.plot(x, y, color=colour, marker=marker, markersize=4, linestyle=style, label=label)
        _plain(axis, "edits", metric.name, title if metric is panels[0] else "")
    made.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=4)
    return made


def panels_of(own: Sequence[Line]) -> list[Metric]:
    """What `sequence_figure` draws: the metrics that were measured where batches followed one another."""
    batches = [line for line in own if line.batch_size and METHODS[line.method].ordered == "batches"]
    measured = {key for line in batches for key in line.numbers} if sequences(own) else set()
    return [metric for metric in (*_SEQUENCE, *tasks(batches)) if metric.key in measured]


def sequences(own: Sequence[Line]) -> dict[str, list[Line]]:
    """The lines of each method and size of batch, by the number of edits. A sequence of one batch is that of
    all edits at once, and stands in both; a method without batches has one sequence."""
    found: dict[str, list[Line]] = {}
    batches = [line for line in own if METHODS[line.method].ordered == "batches"]
    for size in sorted({line.batch_size for line in batches}):
        for line in batches:
            if line.batch_size == size or (line.batch_size == 0 and line.edits <= size):
                found.setdefault(f"{_run(line)}{_way(line, size)}", []).append(line)
    for line in own:
        if line not in batches:
            found.setdefault(f"{_run(line)}{_way(line, 0)}", []).append(line)
    for group in found.values():
        group.sort(key=lambda line: line.edits)
    return {name: group for name, group in found.items() if len(group) > 1}


def _run(line: Line) -> str:
    return f"{line.label}, alpha {line.alpha}" if line.alpha else line.label


def _way(line: Line, size: int) -> str:
    """How the edits followed one another."""
    way = METHODS[line.method].ordered
    if way == "facts":
        return ", one by one"
    return f", batches of {size}" if way == "batches" and size else _AT_ONCE


def _finish(made: Figure, axis: Any, x: str, y: str, title: str) -> None:
    _plain(axis, x, y, title)
    made.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=3)


def _plain(axis: Any, x: str, y: str, title: str) -> None:
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    axis.set_ylim(bottom=0)
    axis.set_axisbelow(True)
    axis.grid(axis="y", color="black", alpha=0.12)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_title(title, fontsize=10, loc="left", pad=14)


def _name(*parts: str) -> str:
    """A file name of letters, digits and dashes."""
    text = "-".join(part for part in parts if part)
    return "-".join("".join(c if c.isalnum() or c == "." else " " for c in text).split()).lower()
