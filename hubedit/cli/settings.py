"""From the options of a command line to the configuration of an edit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hubedit.errors import ConfigError

if TYPE_CHECKING:
    from hubedit.cli.output import Output
    from hubedit.config import EditConfig
    from hubedit.facts import Fact
    from hubedit.model.editable import EditableModel


def settings(preset: str | None, method: str = "", fast: bool = False, **given: Any) -> EditConfig:
    """The configuration: the preset's or the method's ("": the default), or that of --fast, with every option
    that was given (is not None).

    Raises ConfigError for options that are wrong on any model.
    """
    from hubedit.config import EditConfig
    from hubedit.presets import FAST, METHODS, check_settings, method_defaults
    from hubedit.presets import preset as preset_of

    chosen = {name: value for name, value in given.items() if value is not None}
    if fast:
        config = FAST
        if preset is not None or method not in ("", FAST.method):
            other = "--preset" if preset is not None else "--method"
            raise ConfigError(f"--fast and {other} exclude each other: both are whole settings", "give one")
    elif preset is None:
        config = method_defaults(method or EditConfig().method)
    else:
        config = preset_of(preset, method, chosen.pop("prefer", "balanced"))
    method = config.method
    known = METHODS[method].settings | {"corpus", "tokens"}
    if extra := [f"--{name.replace('_', '-')}" for name in chosen if name not in known]:
        options = sorted(f"--{name.replace('_', '-')}" for name in set(given) & known)
        raise ConfigError(f"--method {method} has no {extra[0]}", f"its options: {', '.join(options)}")
    stats: dict[str, Any] = {n: chosen.pop(n) for n in ("corpus", "tokens") if n in chosen}
    if "seed" in chosen:
        stats["seed"] = chosen["seed"]
        config = replace(config, trace=replace(config.trace, seed=chosen["seed"]))
    config = replace(config, stats=replace(config.stats, **stats), **chosen)
    # refused before a model is downloaded and loaded
    check_settings(config)
    return config


def short_text(config: EditConfig, em: EditableModel) -> EditConfig:
    """With as much text for the statistics as --fast has for this model."""
    from hubedit.presets import FAST_TOKENS

    tokens = FAST_TOKENS * max(em.d_in(site) for site in em.sites())
    return replace(config, stats=replace(config.stats, tokens=tokens))


def chosen_on(preset: str | None, facts: Sequence[Fact], prefer: str = "balanced") -> str:
    """What the reader of the figures should know where a preset was chosen on these facts; "" elsewhere."""
    from hubedit.preset_file import is_preset_file, load_preset

    if preset is None or not is_preset_file(preset):
        return ""
    return load_preset(preset).chosen_on([fact.prompt for fact in facts], prefer)


def parse_rank(text: str | None) -> int | None:
    """The rank of `--rank`. Raises ConfigError."""
    from hubedit.config import AUTO_RANK

    if text is None or text == "auto":
        return None if text is None else AUTO_RANK
    if not text.isdecimal():
        raise ConfigError(f"cannot read --rank {text!r}", "write auto, a number, or 0 for the exact patch")
    return int(text)


def check_preset(sink: Output, preset: str | None, config: EditConfig, em: EditableModel) -> None:
    """A notice where a preset file was found on another model than this one. Raises ConfigError where the
    preset's layers are not in this model."""
    from hubedit.edit.locate.layers import parse_layers
    from hubedit.environment import base_name
    from hubedit.preset_file import is_preset_file, load_preset

    if preset is None:
        return
    if is_preset_file(preset) and (notice := load_preset(preset).elsewhere(base_name(em), em.num_layers)):
        sink.note(f"notice: {notice}")
    if config.layers != "auto":
        try:
            parse_layers(config.layers, em.num_layers)
        except ConfigError as error:
            hint = f"{error.hint}; --preset {preset} has its own layers where --layers is not given"
            raise ConfigError(error.message, hint) from error
