"""The figures are drawn for models of any depth, and are the same for the same trace."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from hubedit.config import TraceConfig
from hubedit.edit.locate.trace_result import CATEGORIES, KINDS, TraceResult
from hubedit.errors import HubEditError
from hubedit.report.figures import heat_maps, layerwise

pytest.importorskip("matplotlib")


def made(layers: int, heat: bool = True) -> TraceResult:
    curve = {
        kind: tuple(0.5 / (1 + abs(n - 2 - 3 * k)) for n in range(layers)) for k, kind in enumerate(KINDS)
    }
    spread = dict.fromkeys(KINDS, (0.02,) * layers)
    rows = {
        kind: tuple(
            (None,) * layers if c == 1 else tuple(x * c / 5 for x in curve[kind])
            for c in range(len(CATEGORIES))
        )
        for kind in KINDS
    }
    return TraceResult(
        layers=tuple(range(layers)),
        ie_prob=curve,
        ie_logit=curve,
        se_prob=spread,
        se_logit=spread,
        heat_prob=rows if heat else {},
        heat_logit=rows if heat else {},
        prob_clean=0.9,
        prob_corrupted=0.1,
        logit_clean=3.0,
        logit_corrupted=-1.0,
        noise=0.3,
        facts=60,
        checked=60,
        known=55,
        traced=50,
        model="owner/name",
        commit="",
        dtype="float32",
        config=TraceConfig(),
    )


def size(png: bytes) -> tuple[int, int]:
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", png[16:24])
    return width, height


@pytest.mark.parametrize("layers", [1, 4, 28, 80])
def test_both_figures_are_drawn(layers: int) -> None:
    trace = made(layers)
    for png in (heat_maps(trace), layerwise(trace)):
        width, height = size(png)
        assert 600 < width < 4000
        assert 300 < height < 1500


def test_the_same_trace_gives_the_same_bytes() -> None:
    assert heat_maps(made(6)) == heat_maps(made(6))
    assert layerwise(made(6)) == layerwise(made(6))


def test_what_the_trace_says_is_drawn() -> None:
    other = replace(made(6), ie_prob=dict.fromkeys(KINDS, (0.0,) * 6))
    assert layerwise(other) != layerwise(made(6))


def test_no_heat_map_of_the_last_subject_token_alone() -> None:
    with pytest.raises(HubEditError, match="--tokens all"):
        heat_maps(made(4, heat=False))
    assert layerwise(made(4, heat=False))


def test_a_trace_without_effects_is_drawn() -> None:
    flat = made(4)
    zero = {kind: tuple((0.0,) * 4 for _ in CATEGORIES) for kind in KINDS}
    assert heat_maps(replace(flat, heat_prob=zero))
