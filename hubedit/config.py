"""Frozen configurations. Unknown keys are errors; defaults are the measured ones of docs/experiments.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from hubedit.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Config = TypeVar("Config", bound="DataclassInstance")

PREFERENCES = ("success", "balanced", "locality")
"""From "edits must succeed" to "nothing else may change"."""


@dataclass(frozen=True)
class TraceConfig:
    """Causal tracing (Meng et al. 2022, ROME, section 2; method.md section 1).

    `noise`: standard deviations of the subject-token embeddings; `samples`: noise samples a fact;
    `window`: layers restored together (odd, 1 = single layer); `tokens`: where clean states are
    put back; `max_facts`: at most so many of the facts that the model knows are traced; `seed`: of the
    noise.
    """

    noise: float = 3.0
    samples: int = 10
    window: int = 1
    tokens: Literal["subject_last", "all"] = "subject_last"
    max_facts: int = 50
    seed: int = 0


@dataclass(frozen=True)
class StatsConfig:
    """Second moments of the edited sites' inputs.

    `corpus`: "self" (text the model generates), a text file, or a Hub data set;
    `tokens`: 0 means 10 x the widest site (arXiv 2506.04226); `seed`: of the text the model generates, of
    which an edit of many facts reads more, to find other subjects in it.
    """

    corpus: str = "self"
    tokens: int = 0
    seed: int = 0


@dataclass(frozen=True)
class TargetConfig:
    """Optimisation of the residual `z - h[L]` each fact needs (MEMIT, eq. 16, with essence prompts).

    `steps`: at most so many steps of gradient descent; `step`: length of the first step relative to
    |h[L]| (scale free: the same on a model of any size); `clamp`: bound on |delta| / |h[L]|; `decay`:
    weight of |delta| / |h[L]| in the objective; `kl`: weight of the predictions that are preserved;
    `essence`: at most so many other beliefs about the subject are preserved; `told`: at most so many other
    phrasings of a relation must give the target too; `implied`: at most so many answers that follow from the
    target must come with it; `contexts`: sentences of the corpus that stand before the prompt; `loss`: a fact
    is done when its objective has fallen to this;
    `patience`, `gain`: or when it has not fallen by the share `gain` in so many steps (0 = never);
    `optimizer`: "steepest" (steps of a given length, as above) or "adam" (MEMIT's recipe: `step` is an
    absolute learning rate, `steps` one more than its moves, and KL is that of the edited from the original)
    """

    steps: int = 80
    step: float = 0.3
    clamp: float = 6.0
    decay: float = 1e-3
    kl: float = 0.25
    essence: int = 8
    told: int = 4
    implied: int = 4
    contexts: int = 5
    loss: float = 0.1
    patience: int = 0
    gain: float = 0.01
    optimizer: Literal["steepest", "adam"] = "steepest"


@dataclass(frozen=True)
class EditConfig:
    """One edit run.

    `method`: "joint" (hubedit's own) or a published one, "intattn", "memit", "rome", "r-rome",
    "intattn-rome", "alphaedit", "emmet", "lora" or "ft" (docs/method.md; `hubedit.presets.method_defaults`
    has their settings);
    `batch_size`: edit at most so many facts at once, batch after batch (0 = all at once); `null_space`: only
    write into eigenvectors of the preserved moment with eigenvalues below this, "0.02" absolute or "1%" of
    the largest ("" = anywhere); `l2`: AlphaEdit's L2, EMMET's weight on the diagonal; `whiten`: ROME's
    direction is C^-1 k and not k; `collapse`: "stop" raises when the model is damaged, "tell" goes on.

    `layers`: "auto", "4-8" or "4,6,8"; `alpha`: "auto", "per-layer" or a share 0..1; `order`:
    "attention-first" (the MLP makes good what attention left) or "joint" (both from the same keys);
    `drift_attention`, `drift_mlp`: without `search`, the budget of each site's predicted drift
    tr(dW C dW^T) / tr(W C0 W^T), from which its lambda follows (docs/method.md, section 5); `search`: budgets
    are found by trial, and probes decide; `lam`: a fixed lambda instead of any budget (0 = from the budget);
    `own`: weight 0..1 of the batch's own prompts, beside their edited tokens, in what is preserved (the
    corpus has the rest);
    `prefer`: "success", "balanced" or "locality", what weighs more: it sets the first budget and
    the weights of the probes and of polish;
    `rank`: truncate the patch (0 = exact); `polish`: steps of descent of the finished factors (0 = none;
    few facts and hundreds take more, and facts that fail further rounds); `repair`: at most so many rounds
    on the facts that still fail; `seed`: of the choice of preserved beliefs.
    """

    method: str = "joint"
    batch_size: int = 0
    null_space: str = ""
    l2: float = 0.0
    whiten: bool = True
    collapse: Literal["stop", "tell"] = "stop"
    layers: str = "auto"
    alpha: str = "auto"
    order: Literal["attention-first", "joint"] = "attention-first"
    drift_attention: float = 0.01
    drift_mlp: float = 0.05
    search: bool = True
    prefer: str = "balanced"
    lam: float = 0.0
    own: float = 0.8
    rank: int = 0
    polish: int = 32
    repair: int = 2
    seed: int = 0
    trace: TraceConfig = field(default_factory=TraceConfig)
    stats: StatsConfig = field(default_factory=StatsConfig)
    targets: TargetConfig = field(default_factory=TargetConfig)


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as plain JSON data."""
    return asdict(config)


def from_dict(kind: type[Config], data: Mapping[str, Any]) -> Config:
    """The configuration `data` describes. Raises ConfigError on an unknown key."""
    known = {f.name: f for f in fields(kind)}
    unknown = sorted(set(data) - set(known))
    if unknown:
        raise ConfigError(f"unknown setting {unknown[0]!r}", f"known: {', '.join(sorted(known))}")
    default = kind()
    nested = {
        k: from_dict(type(getattr(default, k)), v) if is_dataclass(getattr(default, k)) else v
        for k, v in data.items()
    }
    return replace(default, **nested)
