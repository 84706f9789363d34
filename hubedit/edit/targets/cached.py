"""Targets from the cache, else optimised now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hubedit.cache import Cache
from hubedit.config import TargetConfig, to_dict
from hubedit.edit.rows import Row
from hubedit.edit.targets.optimise import Targets, optimise
from hubedit.edit.targets.optimizers import CONSTANTS
from hubedit.linalg import LowRank
from hubedit.model.editable import EditableModel
from hubedit.model.sites import Site
from hubedit.progress import Progress

_FORMAT = 9  # goes up when a change in how targets are found gives other results
_TENSORS = ("delta", "norm", "loss", "nll")


def cached_targets(
    em: EditableModel,
    rows: Sequence[Row],
    count: int,
    layer: int,
    config: TargetConfig,
    cache: Cache,
    progress: Progress,
    *,
    site: Site | None = None,
    factors: Mapping[Site, LowRank] | None = None,
) -> Targets:
    """Targets of `count` facts or subjects, whose numbers the rows bear; the rest as for `optimise`. The key
    of the cache holds every input."""
    key = {
        "format": _FORMAT,
        "constants": CONSTANTS,
        "model": em.identity,
        "dtype": str(em.dtype),
        "device": em.device.type,
        "layer": layer,
        "site": str(site),
        "factors": {str(s): f.digest() for s, f in sorted((factors or {}).items())},
        "config": to_dict(config),
        "rows": [[r.fact, list(r.ids), r.last, list(r.labels), r.preserve] for r in rows],
    }
    progress.start("targets" if site is None else f"targets {site}", count, "facts")
    entry = cache.load("targets", key)
    if entry is not None:
        targets = Targets(layer, **{name: entry.tensors[name] for name in _TENSORS})
        progress.advance(count)
    else:
        targets = optimise(em, rows, count, layer, config, site=site, factors=factors, progress=progress)
        cache.save("targets", key, {name: getattr(targets, name) for name in _TENSORS}, {})
    progress.finish(f"mean loss {float(targets.loss.mean()):.3f}")
    return targets
