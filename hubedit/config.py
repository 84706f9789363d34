"""Frozen configurations. Unknown keys are errors; what defaults were chosen on is in docs/experiments.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from hubedit.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Config = TypeVar("Config", bound="DataclassInstance")

PREFERENCES = {"success": 1.5, "balanced": 1.0, "locality": 0.7}
"""From "edits must succeed" to "nothing else may change": factors of the clamp. The clamp is the
strongest setting on real models (docs/experiments.md); these two factors themselves were not measured."""


AUTO_RANK = -1
"""As `EditConfig.rank`: the smallest that keeps nearly all (`hubedit.patch.ranks`)."""


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
    `tokens`: 0 means 8 x the widest site; `seed`: of the text the model generates.
    """

    corpus: str = "self"
    tokens: int = 0
    seed: int = 0


@dataclass(frozen=True)
class TargetConfig:
    """How the change that each fact needs is found: by gradient descent on delta, the model's weights fixed
    (MEMIT, Meng et al. 2023, eq. 16). Lengths are relative to what delta is added to: a site's output
    (joint), or h[L].

    `steps`: at most so many steps (joint: for each site in each round);
    `step`: length of the first step, relative (steepest), or the learning rate (adam);
    `clamp`: bound on |delta|, relative. The joint edit takes a site's share of it, anew in each round;
    `rounds`: how often the joint edit goes through all sites at most, while facts are missing;
    `decay`: weight of |delta| in the objective;
    `kl`: weight of the divergence on "{subject} is a", which is preserved;
    `contexts`: how many beginnings stand before the prompt, the bare prompt not counted (joint: counted);
    `entries`: of a joint edit's predictions the descent sees the so many likeliest entries of the vocabulary
    at each position, and all others as one (0: all of it);
    `loss`: a fact is done when its objective has fallen to this, nats a token;
    `optimizer`: "steepest", steps of a given length along the gradient, or "adam", MEMIT's recipe: `steps`
    is one more than its moves, and KL is that of the edited from the original.
    """

    steps: int = 3
    step: float = 0.1
    clamp: float = 0.2
    rounds: int = 4
    decay: float = 1e-3
    kl: float = 0.0625
    contexts: int = 2
    entries: int = 64
    loss: float = 0.05
    optimizer: Literal["steepest", "adam"] = "steepest"


@dataclass(frozen=True)
class PromptConfig:
    """Forms in which a fact's prompt is put while the joint edit is computed. Chosen on real models
    (docs/experiments.md).

    `openings`: text before the prompt, the bare prompt first: all of them for the keys, the first
    `targets.contexts` for the targets;
    `question`: what stands around the prompt as a question: the answer then follows another token than the
    prompt's last;
    `chat_openings`: so many of the openings also stand in the chat template, where that is used.
    """

    openings: tuple[str, ...] = ("", "As for ", "We all know that ", "In the case of ", "Once more: ")
    question: str = "Question: {}\nAnswer:"
    chat_openings: int = 2


@dataclass(frozen=True)
class EditConfig:
    """One edit run. Which of these a method reads is in `hubedit.presets.METHODS`.

    `method`: "joint" (hubedit's own) or a published one, "intattn", "memit", "rome", "r-rome",
    "intattn-rome", "alphaedit", "emmet", "lora", "ft" or "ultraedit" (docs/method.md);
    `batch_size`: edit at most so many facts at once, batch after batch (0 = all at once);
    `layers`: "auto", "4-8" or "4,6,8";
    `depths`: with "auto", the first and the last edited layer as shares of the model's depth. Early layers
    are the best on two real models, and small changes at several of them harm other facts less than large
    ones at two (docs/experiments.md); a published method has MEMIT's layers 4 to 8 of 32;
    `most_layers`: so many layers at most, spread evenly between the two (0: all of them);
    `alpha`: attention's share, "auto" (from the trace), "per-layer" or a number 0..1;
    `lam`: weight of the preserved second moment against the facts' keys, of which a fact's rows have 1
    together;
    `prefer`: "success", "balanced" or "locality": what weighs more, as a factor of the clamp (`PREFERENCES`);
    `rank`: truncate the patch (0 = exact; -1 = to the smallest rank that keeps 99 %);
    `null_space`: only write into eigenvectors of the preserved moment with eigenvalues below this, "0.02"
    absolute or "1%" of the largest ("" = anywhere);
    `l2`: AlphaEdit's L2, EMMET's weight on the diagonal, UltraEdit's ridge;
    `whiten`: ROME's direction is C^-1 k and not k;
    `collapse`: "stop" raises when the model is damaged, "tell" goes on;
    `seed`: of what is drawn at random.
    """

    method: str = "joint"
    batch_size: int = 0
    layers: str = "auto"
    depths: tuple[float, float] = (0.1, 0.23)
    most_layers: int = 6
    alpha: str = "0"
    lam: float = 30.0
    prefer: str = "balanced"
    rank: int = 0
    null_space: str = ""
    l2: float = 0.0
    whiten: bool = True
    collapse: Literal["stop", "tell"] = "stop"
    seed: int = 0
    trace: TraceConfig = field(default_factory=TraceConfig)
    stats: StatsConfig = field(default_factory=StatsConfig)
    targets: TargetConfig = field(default_factory=TargetConfig)
    prompts: PromptConfig = field(default_factory=PromptConfig)


def parse_null_space(text: str) -> tuple[float, bool] | None:
    """(threshold, whether it is relative) of "0.02" or "1%"; None for "". Raises ConfigError otherwise."""
    if not text:
        return None
    number, percent, rest = text.strip().partition("%")
    try:
        value = float(number) / (100 if percent else 1)
    except ValueError:
        value = -1.0
    if rest or not 0 < value < (1 if percent else float("inf")):
        raise ConfigError(
            f"cannot read null space {text!r}",
            "write 0.02 for eigenvalues below 0.02, or 1% for those below 1 % of the largest",
        )
    return value, bool(percent)


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as plain JSON data: what is written and read back is equal to it."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(part) for key, part in value.items()}
        return list(value) if isinstance(value, tuple) else value

    return {key: plain(value) for key, value in asdict(config).items()}


def from_dict(kind: type[Config], data: Mapping[str, Any]) -> Config:
    """The configuration `data` describes. Raises ConfigError on an unknown key."""
    known = {f.name: f for f in fields(kind)}
    unknown = sorted(set(data) - set(known))
    if unknown:
        raise ConfigError(f"unknown setting {unknown[0]!r}", f"known: {', '.join(sorted(known))}")
    default = kind()
    return replace(default, **{name: _typed(getattr(default, name), value) for name, value in data.items()})


def _typed(default: Any, value: Any) -> Any:
    """JSON data as a field with this default has it."""
    if is_dataclass(default) and not isinstance(default, type):
        return from_dict(type(default), value)
    return tuple(value) if isinstance(default, tuple) and isinstance(value, list) else value
