"""From facts to factors: what is measured once, then batch after batch of the chosen method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

from hubedit.cache import Cache
from hubedit.config import EditConfig
from hubedit.edit.methods.registry import function_of
from hubedit.edit.result import Clock, Edit
from hubedit.edit.sequence import in_batches
from hubedit.edit.stages import Job, measure
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
    steps: Sequence[str] = (),
    standing: Callable[[], AbstractContextManager[EditableModel]] | None = None,
    cache: Cache | None = None,
    progress: Progress | None = None,
) -> Edit:
    """Edits `facts` into factors for `em`, which is the same model afterwards, also when this raises.

    `kept`: facts that an older patch has edited, and that must stay so; `steps`: the id of the step that
    edited each; `standing`: puts that patch into effect. What is measured once is measured before: it is the
    base's, and the same for every patch that stands on another.
    Raises CollapseError when the result would damage the model, ConfigError when options do not fit it.
    """
    cache, progress, clock = cache or Cache(), progress or Silent(), Clock()
    ground = measure(em, facts, config, cache, progress, clock)
    with standing() if standing is not None else nullcontext(em) as stood:
        job = Job(stood, facts, config, ground, cache, progress, clock, kept)
        return in_batches(function_of(config.method), job, steps)
