"""What tuning leaves behind: the preset as TOML, and the front as a picture."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hubedit
from hubedit.config import EditConfig, to_dict
from hubedit.environment import base_name
from hubedit.errors import ConfigError
from hubedit.folder import write_file
from hubedit.model.editable import EditableModel
from hubedit.preset_file import FORMAT, NOT_SHARED, prompt_digest, read_preset
from hubedit.report.draw import BLUE, GREEN, ORANGE, figure, svg
from hubedit.tune.front import Tried, Tuned
from hubedit.tune.trial import Score

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def check_out(out: Path) -> None:
    """Raises ConfigError where a preset cannot be written: only an older preset is replaced."""
    if out.suffix != ".toml":
        raise ConfigError(f"a preset is a TOML file, and {out} has another name", "end it with .toml")
    if out.exists():
        try:
            read_preset(out)
        except ConfigError as error:
            raise ConfigError(f"{out} exists and is no preset", "choose another place with --out") from error


def write(em: EditableModel, tuned: Tuned, out: Path) -> tuple[Path, Path]:
    """Writes the preset, and the front as an SVG beside it; returns both paths."""
    text = toml(content(em, tuned))
    out.parent.mkdir(parents=True, exist_ok=True)
    head = "# A preset of hubedit tune: hubedit apply FACTS --model MODEL --preset THIS_FILE\n"
    write_file(out, lambda part: part.write_text(head + text, encoding="utf-8"))
    picture = out.with_suffix(".svg")
    drawn = svg(lambda: front_figure(tuned), "front").replace("currentColor", "#000000")
    write_file(picture, lambda part: part.write_text(drawn + "\n", encoding="utf-8"))
    return out, picture


def content(em: EditableModel, tuned: Tuned) -> dict[str, Any]:
    """What the file says. No path of this machine gets into it."""
    plain = to_dict(EditConfig())
    fixed = {k: v for k, v in _differs(to_dict(tuned.base), plain).items() if k not in NOT_SHARED}
    balanced = tuned.chosen["balanced"]
    # what one preference takes from the default must be said beside another's settings
    whole = {name: to_dict(tried.config(tuned.base)) for name, tried in tuned.chosen.items()}
    prefer = {name: other for name in whole if (other := _differs(whole[name], whole["balanced"]))}
    return {
        "format": FORMAT,
        "method": "joint",
        "model": {"ref": base_name(em), "commit": em.commit, "num_layers": em.num_layers},
        "settings": _joined(fixed, balanced.settings()),
        **({"prefer": prefer} if prefer else {}),
        "measured": {
            "facts": len(tuned.cases.check),
            **{name: _numbers(score) for name, score in tuned.check.items()},
        },
        "tuned": {
            "trials": len(tuned.trials),
            "facts": len(tuned.cases.trial),
            "seed": tuned.base.seed,
            "hubedit": hubedit.__version__,
            "default": _numbers(tuned.default),
            # prompts of the trials, to tell an edit of the same facts apart
            "seen": [
                prompt_digest(text) for fact in tuned.cases.trial for text in (fact.prompt, *fact.rephrase)
            ],
        },
        "front": [_row(tried) for tried in tuned.front],
    }


def front_figure(tuned: Tuned) -> Figure:
    """Scatter: locality over success of every trial, in per cent; the front as a line, the default beside."""
    made = figure(6.0, 4.4)
    axis = made.subplots()
    own = [t.score for t in tuned.trials if not t.score.collapsed]
    axis.scatter(*_places(own), s=18, color="#888888", label="trials")
    axis.plot(*_places([t.score for t in tuned.front]), color=BLUE, marker="o", markersize=5, label="front")
    axis.scatter(*_places([tuned.default]), s=70, color=ORANGE, marker="X", label="default")
    balanced = tuned.chosen["balanced"].score
    axis.scatter(
        *_places([balanced]),
        s=120,
        facecolors="none",
        edgecolors=GREEN,
        linewidths=1.8,
        label="balanced",
    )
    axis.set_xlabel("success, %")
    axis.set_ylabel("locality, %")
    axis.set_title(f"trials of {len(tuned.cases.trial)} edits: {len(tuned.trials)}", fontsize=10)
    axis.grid(color="black", alpha=0.12)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=9)
    return made


def toml(data: Mapping[str, Any], path: tuple[str, ...] = ()) -> str:
    """TOML of nested mappings, lists of mappings, and plain values."""
    lines, below = [], []
    for name, value in data.items():
        inner = (*path, name)
        if isinstance(value, Mapping):
            below.append(f"\n[{'.'.join(map(_key, inner))}]\n{toml(value, inner)}")
        elif isinstance(value, (list, tuple)) and value and isinstance(value[0], Mapping):
            below += [f"\n[[{'.'.join(map(_key, inner))}]]\n{toml(item, inner)}" for item in value]
        else:
            lines.append(f"{_key(name)} = {_value(value)}\n")
    return "".join((*lines, *below))


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _value(name)


def _value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    # JSON's strings are TOML's, but for one character that TOML wants escaped
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _places(scores: Sequence[Score]) -> tuple[list[float], list[float]]:
    return [100 * s.success for s in scores], [100 * s.locality for s in scores]


def _numbers(score: Score) -> dict[str, float]:
    own = {"mean": score.mean(), **score.metrics, "perplexity_ratio": score.perplexity}
    return {name: round(value, 4) for name, value in own.items()}


def _row(tried: Tried) -> dict[str, Any]:
    score = {"trial": tried.name, "success": round(tried.score.success, 4)}
    score["locality"] = round(tried.score.locality, 4)
    own = tried.settings()
    return {**score, **own.pop("targets", {}), **own}


def _joined(own: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Both, nested alike; where both have an entry, that of `over`."""
    found = dict(own)
    for name, value in over.items():
        found[name] = _joined(own.get(name, {}), value) if isinstance(value, Mapping) else value
    return found


def _differs(own: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of `own` that `other` has not, nested alike."""
    found: dict[str, Any] = {}
    for name, value in own.items():
        if isinstance(value, Mapping):
            if inner := _differs(value, other.get(name, {})):
                found[name] = inner
        elif other.get(name) != value:
            found[name] = value
    return found
