"""From facts to factors: what is measured once, then batch after batch of the chosen method."""

from __future__ import annotations

from collections.abc import Sequence

from hubedit.cache import Cache
from hubedit.config import EditConfig
from hubedit.edit.baseline import measure
from hubedit.edit.batch import EditBatch
from hubedit.edit.methods.registry import function_of
from hubedit.edit.result import Clock, Edit
from hubedit.edit.sequence import in_batches
from hubedit.facts import Fact
from hubedit.model.editable import EditableModel
from hubedit.progress import Progress, Silent

__all__ = ["Edit", "compute"]


def compute(
    em: EditableModel,
    facts: Sequence[Fact],
    config: EditConfig,
    *,
    kept: Sequence[Fact] = (),
    cache: Cache | None = None,
    progress: Progress | None = None,
) -> Edit:
    """Edits `facts` into factors for `em`, which is the same model afterwards, also when this raises.

    `kept`: facts that an older patch, in effect now, has edited, and that must stay so.
    Raises CollapseError when the result would damage the model, ConfigError when options do not fit it.
    """
    cache, progress, clock = cache or Cache(), progress or Silent(), Clock()
    baseline = measure(em, facts, config, cache, progress, clock)
    batch = EditBatch(em, facts, config, baseline, cache, progress, clock, kept)
    return in_batches(function_of(config.method), batch)
