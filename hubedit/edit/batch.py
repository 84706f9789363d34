"""What a method gets: one batch of facts, and everything that it may read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from hubedit.cache import Cache
from hubedit.config import EditConfig, TargetConfig
from hubedit.edit.baseline import Baseline
from hubedit.edit.result import Clock
from hubedit.edit.rows import Row
from hubedit.edit.targets.cached import cached_targets
from hubedit.edit.targets.optimise import Targets
from hubedit.facts import Fact
from hubedit.linalg import LowRank
from hubedit.model.editable import EditableModel
from hubedit.model.sites import Site
from hubedit.progress import Progress


@dataclass(frozen=True)
class EditBatch:
    """One batch of facts for a method.

    `model`: as the batches before have left it; `facts`: to edit (MEMIT's requests); `config`: with the
    method's settings; `baseline`: what was measured before the first batch;
    `same_subject`: facts edited before about a subject of the batch, each with the index of a fact of the
    batch about it; `earlier_keys`: (d_in, d_in) by site, K^T K of the keys of facts edited before, float64,
    for methods that preserve keys; `contexts`: text in front of the prompts of the published methods (ROME's
    context templates), written by the model as it was before the first batch;
    `cache`: of finished targets; `progress`: is notified of stages; `clock`: their seconds.
    """

    model: EditableModel
    facts: Sequence[Fact]
    config: EditConfig
    baseline: Baseline
    cache: Cache
    progress: Progress
    clock: Clock
    same_subject: Sequence[tuple[Fact, int]] = ()
    earlier_keys: Mapping[Site, Tensor] = field(default_factory=dict)
    contexts: Sequence[str] = ()

    def targets(
        self,
        rows: Sequence[Row],
        count: int,
        layer: int,
        config: TargetConfig | None = None,
        site: Site | None = None,
        factors: Mapping[Site, LowRank] | None = None,
    ) -> Targets:
        """`cached_targets` of the rows on this batch's model; `config`: the batch's own without one."""
        return cached_targets(
            self.model,
            rows,
            count,
            layer,
            config or self.config.targets,
            self.cache,
            self.progress,
            site=site,
            factors=factors,
        )
