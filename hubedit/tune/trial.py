"""One trial: an edit with given settings, measured by generation, as two numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any

from hubedit.cache import Cache
from hubedit.config import EditConfig
from hubedit.edit.compute import Edit, compute
from hubedit.errors import CollapseError
from hubedit.evaluate import Reading, compare, read
from hubedit.facts import Fact
from hubedit.model.editable import EditableModel

# without what follows from an edit the deeper layers look better than they are (docs/experiments.md)
_SUCCESS, _LOCALITY = ("success", "generalisation", "portability"), ("locality", "neighbourhood")


@dataclass(frozen=True)
class Score:
    """The two objectives, 0..1. `success`: mean of success, generalisation and portability, of those that
    were measured; `locality`: the same of locality and neighbourhood, times what is left of the likelihood of
    a token of ordinary text (perplexity before / after, at most 1). `metrics`: all that was measured;
    `collapsed`: why it counts as nothing."""

    success: float
    locality: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    perplexity: float = 1.0
    collapsed: str = ""

    @classmethod
    def of(cls, metrics: Mapping[str, float], perplexity: float) -> Score:
        """From what was measured; `perplexity`: after / before."""
        score = cls(_mean(metrics, _SUCCESS), 0.0, metrics, perplexity)
        return replace(score, locality=score.kept * _mean(metrics, _LOCALITY))

    @property
    def kept(self) -> float:
        """What is left of the likelihood of a token of ordinary text, 0..1."""
        return min(1.0, 1 / self.perplexity) if isfinite(self.perplexity) and self.perplexity > 0 else 0.0

    def mean(self, weight: float = 1.0) -> float:
        """Harmonic mean of the two, success counted `weight` times; 0 when one of them is 0."""
        if min(self.success, self.locality) <= 0:
            return 0.0
        return (weight + 1) / (weight / self.success + 1 / self.locality)

    def to_json(self) -> dict[str, Any]:
        """As stored with the trial."""
        own = {"success": self.success, "locality": self.locality, "perplexity": self.perplexity}
        return {**own, "metrics": dict(self.metrics), "collapsed": self.collapsed}


Scorer = Callable[[EditableModel, Sequence[Fact], Reading, EditConfig, Cache], tuple[Score, Edit | None]]
"""What makes an edit and scores it: `trial_edit`."""


def trial_edit(
    em: EditableModel, facts: Sequence[Fact], before: Reading, config: EditConfig, cache: Cache
) -> tuple[Score, Edit | None]:
    """The score of an edit of `facts`, and the edit; a collapse is the worst score. `before`: of `read`."""
    try:
        edit = compute(em, facts, config, cache=cache)
    except CollapseError as error:
        return Score(0.0, 0.0, collapsed=error.message), None
    after = read(em.with_patch(edit.factors), facts)
    metrics = compare(facts, before, after).metrics
    return Score.of(metrics, edit.perplexity_after / edit.perplexity_before), edit


def _mean(metrics: Mapping[str, float], names: Sequence[str]) -> float:
    """Of those that were measured; with none of them there is nothing to lose."""
    known = [metrics[name] for name in names if name in metrics]
    return sum(known) / len(known) if known else 1.0
