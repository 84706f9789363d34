"""The HTML report: one file that fetches nothing, for a browser in light or dark, wide or narrow."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from hubedit.report import about
from hubedit.report.contents import USE, limits, loading, merged_contents, patch_contents, place
from hubedit.report.draw import svg
from hubedit.report.markup import line
from hubedit.report.measures import ANSWERS, Json, Measure, measures, variant
from hubedit.report.plots import Plot
from hubedit.report.templates import render, templates_folder

_MOST = 3000
# of the table of facts; with the figures the page stays below a megabyte
_SIZE = 500_000
_GOOD, _FAIR = 0.9, 0.7


def html_report(
    record: Json,
    report: Json | None = None,
    *,
    name: str = "patch",
    with_facts: bool = True,
    facts: Sequence[Json] = (),
    plots: Sequence[Plot] = (),
    merged: bool = False,
) -> str:
    """A self-contained page. Arguments as for `patch_card`; `merged`: of a merged model."""
    report = report or {}
    fill = merged_contents if merged else patch_contents
    values = fill(record, report, facts, with_facts=with_facts, most=_MOST, size=_SIZE)
    shown = measures(variant(report, "merged") if merged else report)
    values["name"] = line(place(name))
    values["load"] = loading(values["base"], values["name"], "", merged=merged)
    values["limits"] = limits(values, merged=merged)
    values["merged"] = merged
    values["again"] = "" if merged or not with_facts else about.again(record, values["name"])
    values["use"] = USE
    values["tiles"] = [_tile(measure) for measure in shown if _leads(measure)]
    values["figures"] = [{"caption": plot.caption, "svg": svg(plot.draw, plot.name)} for plot in plots]
    # the page's policy lets this one script run, and nothing that a fact may hold
    script = (templates_folder() / "report.js").read_text(encoding="utf-8")
    values["script"] = script
    values["script_hash"] = b64encode(sha256(script.encode()).digest()).decode()
    return render("report.html.j2", values)


def _leads(measure: Measure) -> bool:
    """Whether the figure stands at the top of the page."""
    first = measure.group == "answers" and measure.key in ANSWERS
    return measure.after is not None and (first or measure.key == "perplexity")


def _tile(measure: Measure) -> dict[str, Any]:
    after = measure.after
    assert after is not None
    level = ""
    if measure.unit == "share":
        level = "good" if after.value >= _GOOD else "fair" if after.value >= _FAIR else "poor"
    value, _, interval = measure.text("after").partition(" (")
    name, _, meaning = measure.name.partition(": ")
    details = [f"95 %: {interval.rstrip(')')}"] if interval else []
    details += [f"before: {measure.text('before').partition(' (')[0]}"] if measure.before else []
    details += [f"n = {measure.n:,}"] if measure.n is not None else []
    return {"name": name, "meaning": meaning, "value": value, "details": details, "level": level}
