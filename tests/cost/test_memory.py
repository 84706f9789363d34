"""No stage holds more than the estimate says, and at Qwen2.5-7B's shape none exceeds a card of 24 GB.

What a whole edit holds is counted on a small model, tensor by tensor; the formulas that must be above it are
then read at the large one's sizes, which is there on the "meta" device, without numbers.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from hubedit.cache import Cache
from hubedit.config import EditConfig, StatsConfig, TargetConfig
from hubedit.cost import memory
from hubedit.cost.stages import edited, weights_size
from hubedit.model.sites import Site
from hubedit.pipeline import apply_facts
from hubedit.presets import method_defaults
from hubedit.progress import Silent
from tests.benchmarks.shapes import facts_of, model
from tests.counting import Allocations

LIMIT, WANTED = 24e9, 20e9
PARTS = {
    "asking": "reading",
    "generating text": "text",
    "generating text to compare on": "text",
    "statistics": "statistics",
    "edit, round": "targets",
    "measuring perplexity before": "check",
    "measuring perplexity after": "check",
    "comparing both models on text": "check",
}


class Peaks(Silent):
    """The most bytes that were alive in each stage of the estimate, beside the weights."""

    def __init__(self, used: Allocations) -> None:
        self.used, self.found, self.name = used, dict[str, int](), "reading"

    def start(self, stage: str, total: int | None = None, unit: str = "") -> None:
        self.close(PARTS["asking" if stage.startswith("asking") else re.sub(r" \d+ of.*$", "", stage)])

    def finish(self, note: str = "") -> None:
        self.close("check" if self.name in ("targets", "text", "statistics") else self.name)

    def close(self, following: str) -> None:
        self.found[self.name] = max(self.found.get(self.name, 0), self.used.peak)
        self.used.peak, self.name = self.used.live, following


@pytest.mark.parametrize("shape", ["pico", "small"])
def test_no_stage_holds_more_than_is_said(shape: str, tmp_path: Path) -> None:
    em = model(shape, "cpu", "float32")
    config = EditConfig(collapse="tell", stats=StatsConfig(tokens=1000), targets=TargetConfig(rounds=1))
    facts = facts_of(em, 12)
    said = memory.stages(edited(em, facts, config))
    with Allocations() as used:
        peaks = Peaks(used)
        apply_facts(em, facts, config, out=tmp_path / "p", cache=Cache(tmp_path / "c"), progress=peaks)
        peaks.close("")
    # targets and solve of a site follow one another in one stage of the display
    said["targets"] = max(said["targets"], said["solve"])
    assert set(peaks.found) == {"reading", "text", "statistics", "targets", "check"}
    for stage, counted in peaks.found.items():
        assert counted < said[stage], (stage, counted, said[stage])


@pytest.mark.parametrize("method", ["joint", "memit", "alphaedit", "ultraedit"])
def test_every_stage_at_the_shape_of_7b_fits_24_gb(method: str) -> None:
    em = model("qwen2.5-7b", "meta", "bfloat16")
    weights = weights_size(em)
    assert em.d_in(Site(8, "mlp")) == 18944 and 15.0e9 < weights < 15.5e9
    edit = edited(em, facts_of(em, 1000), method_defaults(method))
    found = memory.stages(edit, free=int(LIMIT - weights))
    assert {"reading", "text", "statistics", "check", "keys"} < set(found)
    for stage, size in found.items():
        bound = WANTED if stage in ("reading", "text", "check", "keys") else LIMIT
        assert weights + size < bound, (stage, size / 1e9)


def test_memory_is_that_of_the_largest_stage_beside_the_weights() -> None:
    em = model("pico", "cpu", None)
    edit = edited(em, facts_of(em, 3), EditConfig())
    assert memory.peak(edit, 1000) == memory.LIBRARIES + 1000 + max(memory.stages(edit).values())
    wide = edited(em, facts_of(em, 3), replace(EditConfig(), layers="0-3"))
    assert memory.stages(wide)["statistics"] > memory.stages(edit)["statistics"]
