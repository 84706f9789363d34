"""Two facts and settings with which a pico model is edited in a second, for what surrounds an edit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hubedit.config import EditConfig, StatsConfig, TargetConfig
from hubedit.facts import Fact, Probe
from hubedit.model.editable import EditableModel
from hubedit.pipeline import Applied, apply_facts

FACTS = (
    Fact(
        "The capital of France is",
        "France",
        "Rome",
        rephrase=("France's capital is",),
        locality=(
            Probe("The official language of France is", ("French",)),
            Probe("The capital of Italy is", ("Rome",)),
        ),
        portability=(Probe("The river through the capital of France is the", ("Tiber",)),),
        line=1,
    ),
    Fact("Marie Curie was born in", "Marie Curie", "Tokyo", line=2),
)
# the layers and the share are given, because a random model knows nothing that could be traced; the corpus
# is a file, because generating one would take most of the time
QUICK = EditConfig(
    layers="1-2",
    alpha="0.3",
    stats=StatsConfig(corpus=str(Path(__file__).with_name("pico.py")), tokens=200),
    targets=TargetConfig(steps=6, contexts=2, entries=0),
)


def run(em: EditableModel, out: Path, config: EditConfig = QUICK, **more: Any) -> Applied:
    return apply_facts(em, FACTS, config, out=out, **more)
