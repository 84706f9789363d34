"""A preset as a file that can be shared: TOML with the settings of one method, found on one model.

    format = 1
    method = "joint"
    [model]             # where it was found; for people
    [settings]          # fields of EditConfig
    [settings.targets]  # fields of TargetConfig
    [prefer.success]    # what differs with --prefer success; the same with locality
    [measured], [[front]], [tuned]  # how well it did; not read back

A Hub repository shares one as its file `preset.toml`. Settings that say where data comes from or that turn
a guard off are not taken from a file that anybody may have written, nor is text for the model.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from hubedit.config import PREFERENCES, EditConfig, from_dict
from hubedit.errors import ConfigError
from hubedit.remote import translated_errors
from hubedit.values import check_type

FORMAT = 1
NAME = "preset.toml"
_TABLES = ("format", "method", "model", "settings", "prefer", "measured", "front", "tuned")
NOT_SHARED = frozenset({"method", "seed", "collapse", "trace", "stats", "depths", "most_layers", "prompts"})


@dataclass(frozen=True)
class PresetFile:
    """`settings`: as in EditConfig; `prefer`: what differs, by preference; `source`: for messages;
    `model`: what it was found on, as far as the file tells; `seen`: digests of the prompts that chose it."""

    method: str
    settings: Mapping[str, Any]
    prefer: Mapping[str, Mapping[str, Any]]
    source: str
    model: Mapping[str, Any] = field(default_factory=dict)
    seen: frozenset[str] = frozenset()

    def chosen_on(self, prompts: Collection[str], prefer: str = "balanced") -> str:
        """What the reader of an edit's figures should know where its facts chose the settings; else ""."""
        count = sum(prompt_digest(prompt) in self.seen for prompt in prompts)
        # a file without settings is the default, which no trial chose
        if not count or not (self.settings or prefer in self.prefer):
            return ""
        return (
            f"the settings were chosen by trial edits of {count} of these {len(prompts)} facts, "
            "so the figures on them are too good"
        )

    def elsewhere(self, ref: str, num_layers: int) -> str:
        """What a user should know who takes it for another model than it was found on; "" for the same."""
        name, layers = str(self.model.get("ref", ref)), self.model.get("num_layers", num_layers)
        # a local copy has the repository's last name
        if layers == num_layers and name.rpartition("/")[2] == ref.rpartition("/")[2]:
            return ""
        counts = ("", "") if layers == num_layers else (f" ({layers} layers)", f" ({num_layers})")
        return (
            f"the preset {self.source} was found on {name}{counts[0]}, and this is {ref}{counts[1]}: "
            "hubedit tune finds settings for it"
        )

    def onto(self, base: EditConfig, prefer: str = "balanced") -> EditConfig:
        """`base` with the settings of this file."""
        config = overlaid(base, self.settings)
        if not self.settings and prefer not in self.prefer:
            # a file that fixes nothing leaves the weighing to the edit, as without a file
            return replace(config, prefer=prefer)
        return overlaid(config, self.prefer.get(prefer, {}))


def prompt_digest(prompt: str) -> str:
    """What a preset keeps of a prompt: enough to know it again, and no word of it."""
    return hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def is_preset_file(name: str) -> bool:
    """Whether a preset's name means a file, a folder or a repository, and not a built-in one."""
    text = name.strip()
    return text.endswith(".toml") or "/" in text or Path(text).expanduser().is_dir()


def load_preset(ref: str) -> PresetFile:
    """The preset of a TOML file, of a folder that holds `preset.toml`, or of `owner/name[@revision]`.

    Raises ConfigError for a file that is no preset, and where the Hub has none.
    """
    path = Path(ref.strip()).expanduser()
    if path.is_dir():
        path = path / NAME
    if path.is_file():
        return read_preset(path, ref)
    repo, _, revision = ref.strip().partition("@")
    if path.suffix != ".toml" and re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        return read_preset(_fetch(repo, revision), ref)
    raise ConfigError(f"there is no preset {path}", "give a TOML file that hubedit tune wrote, or owner/name")


def read_preset(path: Path, source: str = "") -> PresetFile:
    """Reads and checks one file. Raises ConfigError, which names the file and the first fault."""
    source = source or str(path)
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        hint = "mend that place, or make a preset with hubedit tune"
        raise ConfigError(f"{source} is no preset: {error}", hint) from error
    if data.get("format") != FORMAT or not isinstance(data.get("settings"), dict):
        raise ConfigError(
            f"{source} is no preset of this version: it needs format = {FORMAT} and a table [settings]",
            "make one with hubedit tune",
        )
    if unknown := sorted(set(data) - set(_TABLES)):
        raise ConfigError(f"{source}: unknown table {unknown[0]!r}", f"known: {', '.join(_TABLES)}")
    prefer = data.get("prefer", {})
    if not isinstance(prefer, dict):
        raise ConfigError(f"{source}: prefer is no table")
    if unknown := sorted(set(prefer) - set(PREFERENCES)):
        hint = f"known: {', '.join(PREFERENCES)}"
        raise ConfigError(f"{source}: unknown preference {unknown[0]!r}", hint)
    model = data.get("model", {})
    if not isinstance(model, dict):
        raise ConfigError(f"{source}: model is no table")
    tuned = data.get("tuned", {})
    seen = tuned.get("seen", []) if isinstance(tuned, dict) else None
    if not isinstance(seen, list):
        raise ConfigError(f"{source}: tuned.seen is no list of digests")
    digests = frozenset(map(str, seen))
    found = PresetFile(str(data.get("method", "joint")), data["settings"], prefer, source, model, digests)
    for name, part in (("settings", found.settings), *((f"prefer.{n}", p) for n, p in prefer.items())):
        if not isinstance(part, dict):
            raise ConfigError(f"{source}: {name} is no table")
        try:
            _check(EditConfig(), part)
            overlaid(EditConfig(), part)
        except ConfigError as error:
            hint = error.hint or "docs/config.md has every setting with its type"
            raise ConfigError(f"{source}: {error.message}", hint) from error
    return found


def overlaid(base: EditConfig, data: Mapping[str, Any]) -> EditConfig:
    """`base` with other values of some fields, nested as in JSON. Raises ConfigError on an unknown key."""
    from_dict(EditConfig, data)
    nested = {k: replace(getattr(base, k), **v) if isinstance(v, Mapping) else v for k, v in data.items()}
    return replace(base, **nested)


def _check(default: Any, data: Mapping[str, Any]) -> None:
    """Raises ConfigError for a field that does not exist, is not shared, or has another type."""
    shared = {f.name for f in fields(default)} - NOT_SHARED
    for name, value in data.items():
        if name not in shared:
            raise ConfigError(f"{name!r} is no setting of a preset", f"known: {', '.join(sorted(shared))}")
        own = getattr(default, name)
        if is_dataclass(own):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{name} is no table")
            _check(own, value)
        else:
            check_type(name, own, value)


def _fetch(repo: str, revision: str) -> Path:
    from huggingface_hub import constants, hf_hub_download

    with translated_errors(repo, revision or None, kind=ConfigError, doing="download"):
        return Path(
            hf_hub_download(
                repo, NAME, revision=revision or None, local_files_only=bool(constants.HF_HUB_OFFLINE)
            )
        )
