"""The methods that hubedit knows, and their published settings: as data, without torch.

`METHODS` has one row a method, `PRESETS` one configuration a model and published method. Every one fixes what
a paper or its authors' code fixes and does without what is hubedit's own. The joint method's defaults follow
from the model instead, because fixed numbers carry over badly (docs/experiments.md).
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from hubedit.config import EditConfig, MethodName, StatsConfig, TargetConfig
from hubedit.errors import ConfigError
from hubedit.method import ONE_LAYER, TRAINED, Method
from hubedit.preset_file import is_preset_file, load_preset

_WHERE = ("layers", "depths", "most_layers", "rank")
_COMMON = frozenset({"method", "batch_size", "collapse", "seed", "trace", "stats", "targets", *_WHERE})
_JOINT = frozenset(
    "alpha lam lam_facts lam_per_fact chat_template chat_step norm_step prefer prompts".split()
)
LORA_RANK = 8
WINDOW = (1 / 8, 1 / 4)
"""Depths of the layers that the published methods edit: MEMIT's layers 4 to 8 of 32."""


# MEMIT (Meng et al. 2023) as in EasyEdit, hparams/MEMIT/{qwen2.5-7b,mistral-7b}.yaml
_MEMIT = TargetConfig(
    steps=25, step=0.5, clamp=4.0, decay=1e-3, kl=0.0625, contexts=5, loss=0.05, optimizer="adam"
)
# Llama-3: AlphaEdit (Fang et al. 2025), hparams/{AlphaEdit,MEMIT}/Llama3-8B.json
_LLAMA = replace(_MEMIT, step=0.1, decay=0.5, clamp=0.75)
# ROME (Meng et al. 2022) puts 20 generated beginnings before the prompt
_ROME = replace(_MEMIT, contexts=20)
# EasyEdit, hparams/LoRA/llama-7b.yaml; the stop is its trainer's
_LORA = TargetConfig(steps=70, step=5e-3, clamp=0, decay=0, kl=0, contexts=0, loss=1e-3, optimizer="adam")
# LocFT-BF (Yang et al. 2026), hparams/{qwen2.5-7b,llama3-8b}.yaml; steps are epochs
_FT = replace(_LORA, steps=25, step=5e-4, loss=1e-2)
# UltraEdit (Gu et al. 2025), config/editor/ultraedit.yaml: one step, whose size is `step`
_ULTRAEDIT = replace(_LORA, steps=1, step=1e-6, loss=0)


def _plain(method: MethodName, targets: TargetConfig, **more: Any) -> EditConfig:
    """Settings of a published method; what it does not read is at its neutral value."""
    base = EditConfig(method=method, depths=WINDOW, most_layers=0, alpha="0", whiten=False, targets=targets)
    return replace(base, stats=StatsConfig(names=0), **more)


_LAMBDA = 15000.0
_ALPHAEDIT = {"null_space": "0.02", "l2": 10.0}
# EasyEdit, hparams/EMMET/llama-7b.yaml: mom2_update_weight 1, emmet_lambda 0.1
_EMMET = {"lam": 1.0, "l2": 0.1}

METHODS: dict[str, Method] = {
    "joint": Method(
        "hubedit joint",
        "hubedit's own: small changes at several early layers, by gradient descent and a least-squares solve",
        "hubedit.edit.methods.joint:joint",
        _COMMON | _JOINT,
        EditConfig(),
        attention=True,
        published=False,
        divided="length that a change may have",
        way="What each edited weight should write for each fact was found by a few steps of gradient descent "
        "on activations, one weight after another and again while facts were missing; the change that makes "
        "it write that, and keeps what it writes for ordinary text, was solved for in closed form.",
    ),
    "intattn": Method(
        "IntAttn-Edit",
        "IntAttn-Edit: attention output and MLP projections of several layers, closed form",
        "hubedit.edit.methods.intattn:intattn",
        _COMMON | {"lam", "alpha"},
        _plain("intattn", _MEMIT, lam=_LAMBDA, alpha="auto"),
        needed=("lam",),
        attention=True,
    ),
    "memit": Method(
        "MEMIT",
        "MEMIT: MLP projections of several layers, closed form",
        "hubedit.edit.methods.memit:memit",
        _COMMON | {"lam"},
        _plain("memit", _MEMIT, lam=_LAMBDA),
        needed=("lam",),
    ),
    "rome": Method(
        "ROME",
        "ROME: one MLP projection, a rank-one update for each fact",
        "hubedit.edit.methods.rome:rome",
        _COMMON | {"whiten"},
        _plain("rome", _ROME, whiten=True),
        one_layer=True,
        one_by_one=True,
        ordered="facts",
        way=ONE_LAYER,
    ),
    "r-rome": Method(
        "R-ROME",
        "R-ROME: ROME with the same key throughout",
        "hubedit.edit.methods.rome:r_rome",
        _COMMON | {"whiten"},
        _plain("r-rome", _ROME, whiten=True),
        one_layer=True,
        one_by_one=True,
        ordered="facts",
        way=ONE_LAYER,
    ),
    "intattn-rome": Method(
        "IntAttn-Edit for ROME",
        "IntAttn-Edit for ROME: attention output and MLP projection of one layer, rank-one updates",
        "hubedit.edit.methods.rome:intattn_rome",
        _COMMON | {"whiten", "alpha"},
        _plain("intattn-rome", _ROME, whiten=True, alpha="auto"),
        attention=True,
        one_layer=True,
        one_by_one=True,
        ordered="facts",
        way=ONE_LAYER,
    ),
    "alphaedit": Method(
        "AlphaEdit",
        "AlphaEdit: MLP projections of several layers, in the null space of what is preserved",
        "hubedit.edit.methods.alphaedit:alphaedit",
        _COMMON | {"null_space", "l2"},
        _plain("alphaedit", _MEMIT, **_ALPHAEDIT),
        needed=("null_space", "l2"),
        keeps_keys=True,
    ),
    "emmet": Method(
        "EMMET",
        "EMMET: MLP projections of several layers, equality-constrained",
        "hubedit.edit.methods.emmet:emmet",
        _COMMON | {"lam", "l2"},
        _plain("emmet", _MEMIT, **_EMMET),
        needed=("lam",),
    ),
    "lora": Method(
        "LoRA",
        "LoRA: attention output and MLP projections, fine-tuned by gradient descent",
        "hubedit.edit.methods.lora:lora",
        _COMMON,
        _plain("lora", _LORA),
        attention=True,
        one_by_one=True,
        trained=True,
        way=TRAINED,
    ),
    "ft": Method(
        "LocFT-BF",
        "LocFT-BF: one MLP projection, fine-tuned by gradient descent",
        "hubedit.edit.methods.ft:ft",
        _COMMON,
        _plain("ft", _FT, batch_size=100),
        one_layer=True,
        depth=1 / 3,
        one_by_one=True,
        ordered="epochs",
        trained=True,
        full_rank=True,
        way=TRAINED,
    ),
    "ultraedit": Method(
        "UltraEdit",
        "UltraEdit: MLP projections of several late layers, one gradient and one solve",
        "hubedit.edit.methods.ultraedit:ultraedit",
        _COMMON | {"l2"},
        _plain("ultraedit", _ULTRAEDIT, l2=1.0, batch_size=100, depths=(3 / 4, 1.0)),
        needed=("l2",),
        one_by_one=True,
        by_token=True,
        way="The change was solved for in closed form from one gradient of the edited prompts' likelihood.",
    ),
}


FAST = replace(
    EditConfig(),
    most_layers=3,
    stats=StatsConfig(names=0.75),
    targets=TargetConfig(rounds=3, contexts=1, step=0.2, clamp=0.3),
)
"""hubedit's own method with less work (`hubedit apply --fast`): three layers at most, targets found on the
bare prompt and the question alone, longer steps in fewer rounds, little text that the model must write."""
FAST_TOKENS = 4
"""With it, tokens of the statistics for each input of the widest site."""


def _model(
    alpha: str, memit: TargetConfig, rome: TargetConfig, ft_layer: str, l2: float = 10.0
) -> dict[str, EditConfig]:
    """Every published method's settings for one model of about 7 B parameters: MEMIT-like methods edit layers
    4-8, ROME-like ones layer 5. The ROME of these sources leaves C out (mom2_adjustment: false)."""
    several, one = {"layers": "4-8"}, {"layers": "5", "whiten": False}
    return {
        "intattn": _plain("intattn", memit, **several, lam=_LAMBDA, alpha=alpha),
        "memit": _plain("memit", memit, **several, lam=_LAMBDA),
        "rome": _plain("rome", rome, **one),
        "r-rome": _plain("r-rome", rome, **one),
        "intattn-rome": _plain("intattn-rome", rome, **one, alpha=alpha),
        "alphaedit": _plain("alphaedit", memit, **several, **{**_ALPHAEDIT, "l2": l2}),
        "emmet": _plain("emmet", memit, **several, **_EMMET),
        "lora": _plain("lora", _LORA, **several),
        "ft": _plain("ft", _FT, layers=ft_layer, batch_size=100),
    }


PRESETS: dict[str, dict[str, EditConfig]] = {
    # alpha: where the authors of IntAttn-Edit find their best results. EasyEdit: hparams/ROME, MEMIT and
    # AlphaEdit/qwen2.5-7b.yaml (L2 1); EMMET and LoRA as published for llama-7b
    "qwen2.5-7b": _model("0.3", _MEMIT, _ROME, "6", l2=1.0),
    # EasyEdit: hparams/ROME and MEMIT/mistral-7b.yaml; AlphaEdit as its authors run other models of this
    # size; LocFT's layer, of which its authors train every weight (at 5e-5), and we the down_proj
    # UltraEdit: down_proj of layers 29 and 30 here, and matrices that are no sites of hubedit in
    # the other two
    "mistral-7b": {
        **_model("0.1", _MEMIT, _ROME, "23"),
        "ultraedit": replace(METHODS["ultraedit"].defaults, layers="29-30"),
    },
    # AlphaEdit's repository: hparams/ROME, MEMIT and AlphaEdit/Llama3-8B.json
    "llama-3-8b": _model("auto", _LLAMA, _ROME, "22"),
}


def preset(name: str, method: str = "", prefer: str = "balanced") -> EditConfig:
    """The settings of a model in `PRESETS`, in any case, for a method; or those of a preset file, by its
    path or by the Hub's repository that holds it.

    `method`: "" is the paper's, "intattn", or the one that a file is for; `prefer`: which of the settings of
    a preset file. Raises ConfigError that lists the names.
    """
    if method:
        check_method(method)
    found = PRESETS.get(name.strip().lower())
    if found is not None:
        if prefer != "balanced":
            raise ConfigError(
                f"--prefer chooses nothing with the preset {name}: a paper's settings are fixed",
                "leave one of the two out",
            )
        if method and method not in found:
            raise ConfigError(
                f"the preset {name} has no settings for --method {method}",
                f"it has the published ones of {', '.join(found)}",
            )
        return found[method or "intattn"]
    if not is_preset_file(name):
        hint = f"known: {', '.join(PRESETS)}; or a TOML file, or a repository owner/name with a preset.toml"
        raise ConfigError(f"unknown preset {name!r}", hint)
    own = load_preset(name)
    check_method(own.method)
    if method and own.method != method:
        raise ConfigError(f"{name} is a preset of --method {own.method}", f"add --method {own.method}")
    return own.onto(METHODS[own.method].defaults, prefer)


def method_defaults(method: str) -> EditConfig:
    """The published settings of a method; layers follow from the model's depth, those of ROME's family and
    alpha from its trace.

    Raises ConfigError that lists the names.
    """
    check_method(method)
    return METHODS[method].defaults


def check_method(name: str) -> None:
    """Raises ConfigError for a name that is not in `METHODS`."""
    if name not in METHODS:
        raise ConfigError(f"unknown method {name!r}", f"one of: {', '.join(METHODS)}")


def check_settings(config: EditConfig) -> None:
    """Raises ConfigError for settings that the method does not read, or none where it needs one."""
    method, usual = METHODS[config.method], EditConfig()
    hint = f'hubedit.method_defaults("{config.method}") has the published settings'
    for field in fields(config):
        value, own = getattr(config, field.name), getattr(method.defaults, field.name)
        if field.name not in method.settings and value not in (own, getattr(usual, field.name)):
            raise ConfigError(f"{config.method} has no setting {field.name!r}", hint)
    if method.published and config.stats.names:
        raise ConfigError(f"{config.method} reads text alone: names of stats must be 0", hint)
    for name in method.needed:
        if not getattr(config, name):
            raise ConfigError(f"{config.method} needs a value of {name.replace('_', ' ')}", hint)
