"""What an edit takes on this machine: the work of each stage times a measured speed, and memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hubedit.cache import Cache
from hubedit.config import EditConfig
from hubedit.cost.memory import peak
from hubedit.cost.speed import measure
from hubedit.cost.stages import edited, stages, weights_size
from hubedit.cost.work import Work
from hubedit.facts import Fact
from hubedit.model.editable import EditableModel

__all__ = ["Estimate", "Work", "estimate", "measure", "rough"]


@dataclass(frozen=True)
class Estimate:
    """`seconds`: by stage, where there is anything to do; `memory`: bytes at the peak, weights included."""

    seconds: Mapping[str, float]
    memory: int

    @property
    def total(self) -> float:
        """Seconds of all stages."""
        return sum(self.seconds.values())

    @property
    def words(self) -> str:
        """Both in a few words."""
        return f"about {rough(self.total)} and {self.memory / 1e9:.1f} GB"


def rough(seconds: float) -> str:
    """`75 seconds`, `12 minutes` or `3 hours`: as exact as an estimate is."""
    for size, name in ((3600, "hours"), (60, "minutes")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} seconds"


def estimate(
    em: EditableModel,
    facts: Sequence[Fact],
    config: EditConfig,
    cache: Cache,
    *,
    speed: Work | None = None,
    brief: bool = False,
) -> Estimate:
    """What editing `facts` into `em` takes from here on, with what the cache has. `speed`: of `measure`,
    which is called without it; `em`: loaded, or `hubedit.cost.stand_in.stand_in`; `brief`: as for
    `hubedit.pipeline.apply_facts`."""
    edit = edited(em, facts, config)
    speed = speed or measure(em)
    seconds = {name: work.at(speed) for name, work in stages(edit, cache, brief=brief).items()}
    return Estimate({name: one for name, one in seconds.items() if one > 0}, peak(edit, weights_size(em)))
