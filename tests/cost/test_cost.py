"""The estimate counts what an edit then does, stage by stage, and times what it counts."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hubedit.cache import Cache
from hubedit.config import EditConfig, StatsConfig, TargetConfig
from hubedit.cost import Work, estimate, measure, rough
from hubedit.cost.stages import edited, stages
from hubedit.cost.stand_in import stand_in
from hubedit.facts import Fact, Probe
from hubedit.model.chat import Chat
from hubedit.model.editable import EditableModel
from hubedit.pipeline import apply_facts
from hubedit.plan import skeleton
from hubedit.presets import method_defaults
from hubedit.progress import Silent
from tests.benchmarks.shapes import facts_of, model

# one round: of facts that a random model never gives, all are still missing in every round
CONFIG = EditConfig(collapse="tell", stats=StatsConfig(tokens=1500), targets=TargetConfig(rounds=1))
PARTS = {
    "asking before": "asking",
    "asking before, in other forms": "asking",
    "asking with the fact in front": "asking",
    "asking with the fact in front, in other forms": "asking",
    "generating text": "text",
    "generating text to compare on": "text",
    "statistics": "statistics",
    "edit, round": "targets",
}
"""Stages of the progress display by those of the estimate; all others are checks and the second reading."""


class Tokens(Silent):
    """Counts tokens by blocks for each stage that is shown, and for what follows it."""

    def __init__(self, em: EditableModel) -> None:
        self.em, self.found, self.name = em, dict[str, float](), "asking"
        self.handles = [
            em.block(n).register_forward_hook(self.add, with_kwargs=True) for n in range(em.num_layers)
        ]

    def add(self, _: Any, given: tuple[Any, ...], named: dict[str, Any], __: Any) -> None:
        hidden = given[0] if given else named["hidden_states"]
        self.found[self.name] = self.found.get(self.name, 0) + hidden[..., 0].numel()

    def start(self, stage: str, total: int | None = None, unit: str = "") -> None:
        self.name = PARTS.get(re.sub(r" \d+ of.*$", "", stage), "rest")

    def finish(self, note: str = "") -> None:
        self.name = "asking" if self.name == "asking" else "rest"


def facts(em: EditableModel, count: int) -> list[Fact]:
    probes = (Probe("The capital of France is", ("Paris",)),)
    return [replace(f, rephrase=(f"{f.subject} lives in",), locality=probes) for f in facts_of(em, count)]


@pytest.mark.parametrize("chat", [None, Chat("<user>", "<answer>", "")])
def test_every_stage_is_in_the_estimate(chat: Chat | None, tmp_path: Path) -> None:
    em = replace(model("pico", "cpu", None), chat=chat)
    some, cache = facts(em, 6), Cache(tmp_path / "cache")
    counted = stages(edited(em, some, CONFIG), cache)
    seen = Tokens(em)
    apply_facts(em, some, CONFIG, out=tmp_path / "patch", cache=cache, progress=seen)
    for handle in seen.handles:
        handle.remove()
    rest = counted["check"].passed + counted["reading after"].passed
    wanted = {"asking": counted["reading before"].passed, "rest": rest}
    wanted |= {name: counted[name].passed for name in ("text", "statistics", "targets")}
    assert set(seen.found) == set(wanted)
    ratios = {name: wanted[name] / tokens for name, tokens in seen.found.items()}
    assert all(0.5 < ratio < 2 for name, ratio in ratios.items() if name != "statistics"), ratios
    assert sum(wanted.values()) == pytest.approx(sum(seen.found.values()), rel=0.4)
    # what the cache has takes no time
    again = stages(edited(em, some, CONFIG), cache)
    assert again["text"].passed == 0 and again["statistics"].passed < counted["statistics"].passed
    assert again["targets"] == counted["targets"]


@pytest.mark.parametrize("method", ["memit", "rome", "lora", "ultraedit", "intattn"])
def test_other_methods_have_their_stages(method: str, tmp_path: Path) -> None:
    em = model("pico", "cpu", None)
    found = stages(edited(em, facts(em, 3), method_defaults(method)), Cache(tmp_path))
    trained = method in ("lora", "ultraedit")
    assert ("fine-tuning" in found) is trained and ("targets" in found) is not trained
    assert (found["trace"].passed > 0) is (method in ("rome", "intattn"))


def test_work_grows_with_the_facts_and_no_faster(tmp_path: Path) -> None:
    em = model("pico", "cpu", None)
    many = facts(em, 3000)
    speed = Work(**{field.name: 1e-6 for field in fields(Work)})
    small, large = (estimate(em, many[:n], CONFIG, Cache(tmp_path), speed=speed) for n in (300, 3000))
    assert small.seconds["statistics"] == large.seconds["statistics"]
    for name in ("reading before", "targets", "reading after"):
        assert 5 < large.seconds[name] / small.seconds[name] < 11


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2", "gpt_neox"])
def test_a_block_without_weights_is_timed_as_one_with(
    family: str, pico_path: Callable[..., Path], editable: Callable[..., EditableModel]
) -> None:
    em = stand_in(skeleton(str(pico_path(family))), torch.device("cpu"), torch.float32)
    for found in (measure(em), measure(editable(family))):
        times = [getattr(found, field.name) for field in fields(Work)]
        assert all(0 <= one < 2 for one in times) and found.tokens > 0 and found.gradients > 0


def test_an_estimate_in_words() -> None:
    assert [rough(n) for n in (4, 80, 600, 9000)] == ["4 seconds", "80 seconds", "10 minutes", "2 hours"]
