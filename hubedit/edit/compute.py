"""From facts to factors: what is measured once, then batch after batch of the chosen method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hubedit.cache import Cache
from hubedit.config import EditConfig
from hubedit.edit.baseline import measure
from hubedit.edit.batch import EditBatch
from hubedit.edit.methods.registry import function_of
from hubedit.edit.result import Clock, Edit
from hubedit.edit.sequence import in_batches
from hubedit.facts import Fact
from hubedit.linalg import LowRank
from hubedit.model.editable import Change, EditableModel
from hubedit.model.sites import Site
from hubedit.progress import Progress, Silent

__all__ = ["Edit", "compute"]


def compute(
    em: EditableModel,
    facts: Sequence[Fact],
    config: EditConfig,
    *,
    kept: Sequence[Fact] = (),
    steps: Sequence[str] = (),
    on: Change | Mapping[Site, LowRank] | None = None,
    cache: Cache | None = None,
    progress: Progress | None = None,
) -> Edit:
    """Edits `facts` into factors for `em`, which is the same model afterwards, also when this raises.

    `on`: an older patch to edit on top of; `kept`: its facts that must stay so; `steps`: the id of the step
    that edited each. What is measured once is the base's, and the same for every patch that stands on
    another.
    Raises CollapseError when the result would damage the model, ConfigError when options do not fit it.
    """
    cache, progress, clock = cache or Cache(), progress or Silent(), Clock()
    baseline = measure(em, facts, config, cache, progress, clock)
    model = em if on is None else em.with_patch(on)
    batch = EditBatch(model, facts, config, baseline, cache, progress, clock, kept)
    return in_batches(function_of(config.method), batch, steps)
