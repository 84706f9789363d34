"""A figure is drawn from what is there, and only then."""

from __future__ import annotations

import struct
import xml.etree.ElementTree as ET

import pytest

from hubedit.report.draw import png, svg
from hubedit.report.plots import NAMES, plots
from tests.report.examples import full_report, outcome, record, report, trace

pytest.importorskip("matplotlib")


def test_all_figures_are_drawn_as_png_and_as_svg() -> None:
    made = plots(record(), full_report())
    assert tuple(plot.name for plot in made) == NAMES
    for plot in made:
        image = png(plot.draw)
        width, height = struct.unpack(">II", image[16:24])
        assert image[:8] == b"\x89PNG\r\n\x1a\n" and 400 < width < 3000 and 200 < height < 2000
        assert image == png(plot.draw)
        drawn = svg(plot.draw, plot.name)
        ET.fromstring(drawn)
        assert drawn == svg(plot.draw, plot.name)
        assert "<script" not in drawn and "#000000" not in drawn


def test_text_in_a_figure_is_no_formula_and_no_markup() -> None:
    (plot,) = [plot for plot in plots({}, full_report()) if plot.name == "relations"]
    words = "".join(ET.fromstring(svg(plot.draw, "x")).itertext())
    assert "<b>x</b> $y$" in words


def test_nothing_is_drawn_of_what_was_not_measured() -> None:
    assert plots({}, {}) == ()
    assert [p.name for p in plots({"trace": {**trace(), "heat_prob": {}, "heat_logit": {}}}, {})] == [
        "layerwise"
    ]
    assert plots({"trace": {"of": "another version"}}, {}) == ()
    assert [p.name for p in plots(record(trace=None), {})] == ["norms"]


def test_relations_need_facts_and_more_than_one_of_a_kind() -> None:
    names = [p.name for p in plots(record(), full_report(), with_facts=False)]
    assert "relations" not in names and "probability" in names
    told = {"{} is": {"success": 1.0, "n": 1}, "{} was": {"success": 0.0, "n": 1}}
    assert not plots({}, {"relations": told})
    facts = [outcome(n) for n in range(3)] + [{**outcome(9), "prompt": "Land9 lies in"}]
    assert [p.name for p in plots({}, {"facts": facts})] == ["relations", "probability"]
    assert not [p for p in plots({}, report(1)) if p.name == "relations"]


def test_norms_come_from_the_adapter_where_sites_say_nothing() -> None:
    (norms,) = plots({"adapter": record()["adapter"]}, {})
    assert norms.name == "norms" and "relative" not in norms.caption
    png(norms.draw)


def test_deep_models_and_extreme_values() -> None:
    sites = {f"m.{n}": {"layer": n, "kind": "mlp", "relative_norm": 0.1} for n in range(80)}
    made = plots({"sites": sites}, {"probability_shift": [[0.0, 1.0], [1e-30, 0.0]]})
    assert [p.name for p in made] == ["norms", "probability"]
    for plot in made:
        png(plot.draw)
