"""Frozen configurations. Unknown keys are errors; what defaults were chosen on is in docs/experiments.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from string import Formatter
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from hubedit.errors import ConfigError
from hubedit.values import check_types, layer_ranges, parse_alpha, parse_null_space

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Config = TypeVar("Config", bound="DataclassInstance")

PREFERENCES = {"success": 1.5, "balanced": 1.0, "locality": 0.7}
"""From "edits must succeed" to "nothing else may change": factors of the clamp. The clamp is the
strongest setting on real models (docs/experiments.md, which has what 0.7 does)."""

MOST_TOKENS = 10**9
"""Of statistics: their rows are in memory all at once."""
AUTO_RANK = -1
"""As `EditConfig.rank`: the smallest that keeps nearly all (`hubedit.patch.ranks`)."""

MethodName = Literal[
    "joint", "intattn", "memit", "rome", "r-rome", "intattn-rome", "alphaedit", "emmet", "lora", "ft",
    "ultraedit",
]  # fmt: skip
"""The keys of `hubedit.presets.METHODS`."""


class _Checked:
    """Settings that refuse a wrong value when they are made. Raises ConfigError."""

    def __post_init__(self: DataclassInstance) -> None:
        check_types(self)


@dataclass(frozen=True)
class TraceConfig(_Checked):
    """Causal tracing (ROME, Meng et al. 2022, arXiv 2202.05262, section 2)."""

    noise: float = 3.0
    """Of the subject's embeddings, in their standard deviations (ROME: 3)."""
    samples: int = 10
    """Noise samples for each fact (ROME: 10)."""
    window: int = 1
    """Layers restored together, an odd number; 1 is a single one (ROME's figures: 10)."""
    tokens: Literal["subject_last", "all"] = "subject_last"
    """Where clean states are put back: at the subject's last token, or at every one from its first on."""
    max_facts: int = 50
    """Facts traced at most, of those that the model knows."""
    seed: int = 0
    """Of the noise."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("samples", "max_facts", "window"):
            if (value := getattr(self, name)) < 1:
                raise ConfigError(f"{name} of the trace must be at least 1, not {value}")
        if self.window % 2 == 0:
            raise ConfigError(
                f"the trace's window must be odd, not {self.window}", "it is centred on a layer"
            )


@dataclass(frozen=True)
class StatsConfig(_Checked):
    """Second moments E[k k^T] of the edited sites' inputs on ordinary text (MEMIT, eq. 14)."""

    corpus: str = "self"
    """Text: "self" (the model writes it), a file, or a data set on the Hub."""
    tokens: int = 0
    """Tokens to read, 1,000,000,000 at most; 0 is 12 x the widest site's input (arXiv 2506.04226 finds about
    10 enough)."""
    seed: int = 0
    """Of the text that the model writes."""
    names: float = 0.67
    """Largest share of the tokens that are sentences about names of many kinds (`hubedit.name_sentences`), 0
    to 1; their list has some 70,000 tokens. Other names' facts then change less (docs/experiments.md); the
    published methods have none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tokens > MOST_TOKENS:
            raise ConfigError(
                f"tokens of the statistics must be at most {MOST_TOKENS:,}, not {self.tokens:,}"
            )
        if self.names > 1:
            raise ConfigError(f"names must be a share from 0 to 1, and is {self.names}")


@dataclass(frozen=True)
class TargetConfig(_Checked):
    """How the change that each fact needs is found: gradient descent on delta, the model's weights fixed
    (MEMIT, Meng et al. 2023, arXiv 2210.07229, eq. 16). Lengths are relative to what delta is added to: a
    site's output (joint, ROME's family), or h[L] (the other published methods)."""

    steps: int = 2
    """Steps of the descent at most; joint: for each site in each round."""
    step: float = 0.13
    """Length of the first step, relative ("steepest"), or the learning rate ("adam")."""
    clamp: float = 0.2
    """Bound on |delta|, relative; the joint edit takes a site's share of it, anew in each round."""
    rounds: int = 4
    """Times that the joint edit goes through all sites at most, while facts are missing, for a target of up
    to `tokens_per_rounds` tokens."""
    tokens_per_rounds: int = 8
    """A target of more tokens may take `rounds` for each started part of so many, four times at most
    (docs/experiments.md)."""
    decay: float = 1e-3
    """Weight of |delta| in the objective."""
    kl: float = 0.0625
    """Weight of the divergence on "{subject} is a", which is preserved (MEMIT: 0.0625)."""
    contexts: int = 2
    """Texts before the prompt; the bare prompt counts in the joint edit and not in the published ones."""
    entries: int = 64
    """Likeliest entries of the vocabulary that the joint edit's descent sees at each position, with all
    others as one; 0 is all of it."""
    loss: float = 0.05
    """Objective, in nats a token, at which a fact is done (MEMIT: 0.05)."""
    optimizer: Literal["steepest", "adam"] = "steepest"
    """"steepest", steps of a given length along the gradient, or "adam", the recipe of MEMIT's authors:
    `steps` is one more than its moves, and KL is that of the edited from the original."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tokens_per_rounds < 1:
            raise ConfigError(f"tokens_per_rounds must be at least 1, not {self.tokens_per_rounds}")

    def rounds_for(self, tokens: int) -> int:
        """Rounds that a target of so many tokens may take. Longer ones than four parts were not measured."""
        return self.rounds * min(4, max(1, -(-tokens // self.tokens_per_rounds)))


@dataclass(frozen=True)
class PromptConfig(_Checked):
    """Forms in which a fact's prompt is put while the joint edit is computed (docs/experiments.md)."""

    openings: tuple[str, ...] = ("", "As for ", "We all know that ", "In the case of ", "Once more: ")
    """Text before the prompt, the bare prompt first: all of it for the keys, the first `targets.contexts`
    for the targets."""
    question: str = "Question: {}\nAnswer:"
    """What stands around the prompt as a question: the answer then follows another token than the prompt's
    last."""
    chat_openings: int = 2
    """Openings that also stand in the chat template, where that is used."""

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            found = [part[1:] for part in Formatter().parse(self.question) if part[1] is not None]
        except ValueError:  # a brace without its other half
            found = []
        if found != [("", "", None)]:
            raise ConfigError(
                f"question must hold {{}} once and no other field, and is {self.question!r}",
                "{} is where the prompt goes; write {{ and }} for braces",
            )


@dataclass(frozen=True)
class EditConfig(_Checked):
    """One edit. Which of these a method reads is in `hubedit.presets.METHODS`."""

    method: MethodName = "joint"
    """"joint" (hubedit's own), or a published one: "intattn", "memit", "rome", "r-rome", "intattn-rome",
    "alphaedit", "emmet", "lora", "ft" or "ultraedit" (docs/method.md)."""
    batch_size: int = 0
    """Facts edited at once at most, batch after batch; 0 is all at once."""
    layers: str = "auto"
    """"auto", "4-8" or "4,6,8"."""
    depths: tuple[float, float] = (0.1, 0.23)
    """With layers "auto" the first and the last edited one, as shares of the model's depth. Early layers are
    the best on two real models, and small changes at several of them harm other facts less than large ones
    at two (docs/experiments.md); the published methods have MEMIT's layers 4 to 8 of 32."""
    most_layers: int = 6
    """Layers edited at most, spread evenly between `depths`; 0 is all of them."""
    alpha: str = "0"
    """Attention's share (IntAttn-Edit, arXiv 2510.27400): "auto" (from the trace), "per-layer", or 0..1."""
    lam: float = 30.0
    """Weight of the preserved second moment against the facts' keys, of which a fact's rows have 1 together
    (MEMIT: mom2_update_weight, 15000)."""
    lam_facts: int = 50
    """Facts of a patch, earlier ones among them, up to which the joint edit's weight is `lam`."""
    lam_per_fact: float = 5.0
    """What each further fact adds to it where no chat template is used: what a patch does at other names
    grows with its facts, and a larger weight holds it back (docs/experiments.md)."""
    chat_template: float = 1.0
    """Weight of messages in the chat template beside the text, in what the joint edit preserves of a model
    that is edited in its template (docs/experiments.md)."""
    chat_step: float = 1.5
    """Factor of the clamp and of the steps where the chat template is used: there an answer stands in more
    forms and is harder to change (docs/experiments.md)."""
    norm_step: float = 0.5
    """Factor of the clamp and of the steps where a norm stands behind a site (Gemma, OLMo 2): there only the
    direction counts, and shorter steps change less beside the facts (docs/experiments.md)."""
    prefer: str = "balanced"
    """"success", "balanced" or "locality": what weighs more, as a factor of the clamp (`PREFERENCES`)."""
    rank: int = 0
    """Rank that the patch is truncated to; 0 is exact, -1 the smallest that keeps 99 %."""
    null_space: str = ""
    """Write only into eigenvectors of the preserved moment with eigenvalues below this, "0.02" absolute or
    "1%" of the largest; "" is anywhere (AlphaEdit: nullspace_threshold, 0.02)."""
    l2: float = 0.0
    """AlphaEdit's L2 (10; 1 for Qwen2.5), EMMET's weight on the diagonal (emmet_lambda, 0.1),
    UltraEdit's ridge."""
    whiten: bool = True
    """ROME's direction is C^-1 k and not k (mom2_adjustment)."""
    collapse: Literal["stop", "tell"] = "stop"
    """"stop" raises where the model is damaged, "tell" goes on."""
    seed: int = 0
    """Of what is drawn at random."""
    trace: TraceConfig = field(default_factory=TraceConfig)
    stats: StatsConfig = field(default_factory=StatsConfig)
    targets: TargetConfig = field(default_factory=TargetConfig)
    prompts: PromptConfig = field(default_factory=PromptConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_alpha(self.alpha)
        parse_null_space(self.null_space)
        if self.layers != "auto":
            layer_ranges(self.layers)
        if self.prefer not in PREFERENCES:
            raise ConfigError(f"unknown preference {self.prefer!r}", f"one of: {', '.join(PREFERENCES)}")
        if len(self.depths) != 2 or not 0 <= self.depths[0] <= self.depths[1] <= 1:
            raise ConfigError(f"depths must be two shares of the model's depth, and are {self.depths}")

    def lam_for(self, facts: int) -> float:
        """The joint edit's weight without a chat template, for a patch that then has so many facts."""
        return self.lam + self.lam_per_fact * max(0, facts - self.lam_facts)


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as plain JSON data: what is written and read back is equal to it."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(part) for key, part in value.items()}
        return list(value) if isinstance(value, tuple) else value

    return {key: plain(value) for key, value in asdict(config).items()}


def from_dict(kind: type[Config], data: Mapping[str, Any]) -> Config:
    """The configuration `data` describes. Raises ConfigError on an unknown key or a wrong value."""
    known = {f.name: f for f in fields(kind)}
    unknown = sorted(set(data) - set(known))
    if unknown:
        raise ConfigError(f"unknown setting {unknown[0]!r}", f"known: {', '.join(sorted(known))}")
    default = kind()
    return replace(
        default, **{name: _typed(name, getattr(default, name), value) for name, value in data.items()}
    )


def _typed(name: str, default: Any, value: Any) -> Any:
    """JSON data as a field with this name and default has it. Raises ConfigError."""
    if is_dataclass(default) and not isinstance(default, type):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{name} must be settings by name, and is {value!r}")
        return from_dict(type(default), value)
    return tuple(value) if isinstance(default, tuple) and isinstance(value, list) else value
