"""What hubedit.json says about a patch, for people: the base, the method, how to make it again.

No local path comes out of here: a local base is its folder's name.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from hubedit.model.families import FAMILIES, Family
from hubedit.presets import METHODS
from hubedit.report.markup import is_hub, last, line, number, percent, plural, without_paths
from hubedit.report.measures import Json

_FROM = {
    "layers": {
        "trace": "from the causal trace",
        "given": "given by the user",
        "method": "of the method",
        "depth": "by the model's depth",
    },
    "alpha": {
        "trace": "measured: attention's share of the indirect effects in the causal trace",
        "given": "as set",
        "method": "of the method",
    },
}
_OUTPUTS = ("--out", "-o", "--html")


def base_of(record: Json) -> dict[str, str]:
    """`name`, `commit` ("" for a local folder), `hub` ("yes" where the name is one of the Hub, else ""),
    `place`, the name for loading code: a folder's name alone would be looked for on the Hub, and `loader`,
    the class of transformers that loads it."""
    base = record.get("base") or {}
    ref, commit = line(base.get("ref") or ""), line(base.get("commit") or "")
    name = ref.partition("@")[0] if commit else last(ref)
    on_hub = bool(commit) and (is_hub(name) or bool(re.fullmatch(r"[\w.-]+", name)))
    name = name or "the base model"
    place = name if on_hub else f"path/to/{name}" if ref else "path/to/the/base"
    loader = FAMILIES[family].loader if (family := str(base.get("family"))) in FAMILIES else Family.loader
    return {"name": name, "commit": commit, "hub": "yes" if on_hub else "", "place": place, "loader": loader}


def made(record: Json) -> list[tuple[str, str]]:
    """Lines of the table "how it was made"; only what the record says."""
    adapter: Json = record.get("adapter") or {}
    rows: dict[str, Any] = {}
    method = str(record.get("method") or "")
    rows["Method"] = METHODS[method].title if method in METHODS else method
    if isinstance(chat := record.get("chat"), Mapping):
        stored = chat.get("system")
        rows["Asked"] = "in the chat template" + (f", system prompt: {stored}" if stored else "")
    rows["Facts at once"] = record.get("batch_size") or None
    rows["Layers"] = layers(record)
    rows["Attention's share (alpha)"] = alpha(record)
    rows["Edited weights"] = ", ".join(adapter.get("sites") or record.get("sites") or ())
    rows["Rank"] = adapter.get("rank")
    relative, sizes = norms(record)
    if relative and sizes:
        ends = sorted(norm for _, _, norm in sizes)
        spread = f"{ends[0]:.2g} to {ends[-1]:.2g}" if len(ends) > 1 else f"{ends[0]:.2g}"
        rows["Size of the changes"] = f"{spread} times the weight's own norm (Frobenius)"
    if kept := (record.get("truncation") or {}).get("energy"):
        rows["Energy kept by truncation"] = f"at least {percent(min(kept.values()))} a weight"
    if kept := (record.get("truncation") or {}).get("text"):
        stored = f"at least {percent(min(kept.values()))} of what each weight does to it"
        rows["Kept on ordinary text"] = stored
    statistics: Json = record.get("statistics") or {}
    if statistics.get("corpus"):
        tokens = number(statistics.get("tokens"))
        text = (
            "the model's own text" if statistics["corpus"] == "self" else without_paths(statistics["corpus"])
        )
        if share := number(statistics.get("names")):
            text = (
                f"{text} and sentences about names ({percent(share)})"
                if share < 1
                else "sentences about names"
            )
        rows["Statistics from"] = text + (f", {tokens:,.0f} tokens" if tokens else "")
    rows["Seed"] = record.get("seed")
    rows["Computed in"] = ", ".join(line(record[k]) for k in ("dtype", "device", "platform") if record.get(k))
    if seconds := number(record.get("seconds")):
        rows["Time"] = f"{seconds:,.0f} s"
    rows["Peak memory"] = _memory(record)
    versions: Json = record.get("packages") or {}
    rows["Versions"] = ", ".join(f"{package} {versions[package]}" for package in sorted(versions))
    return [(name, line(value)) for name, value in rows.items() if value not in (None, "")]


def alpha(record: Json) -> str:
    """Attention's share, and where it comes from; "" for a method that has none."""
    shares = record.get("alpha")
    if isinstance(shares, Mapping) and not any(shares.values()) and record.get("alpha_from") == "given":
        if not shares:
            return ""
        method = METHODS.get(str(record.get("method")))
        if method is not None and method.defaults.alpha == "0":
            return "0 (the default)"
    return _with_source(_alpha(shares), record, "alpha")


def layers(record: Json) -> str:
    """The edited layers, and why they."""
    return _with_source(", ".join(map(str, record.get("layers") or ())), record, "layers")


def way(record: Json) -> str:
    """In plain words how the changes of the weights came about; "" where the record does not say."""
    method = str(record.get("method") or "")
    if method not in METHODS:
        return ""
    shares = record.get("alpha")
    if not METHODS[method].balanced or not isinstance(shares, Mapping) or not shares:
        return METHODS[method].way
    if not any(shares.values()):
        return f"{METHODS[method].way} Alpha is 0: only down projections of MLPs were edited."
    return (
        f"{METHODS[method].way} Alpha is attention's share of the {METHODS[method].divided}: its output "
        "projection got that share, the MLP's down projection the rest."
    )


def configuration(record: Json) -> str:
    """The resolved configuration as JSON text; "" where the record has none."""
    config = record.get("config")
    if not isinstance(config, Mapping):
        return ""
    return json.dumps(_portable(config), indent=2, sort_keys=True, ensure_ascii=False)


def reproduction(record: Json) -> str:
    """The command line with every local path cut to its last part; "" for no command."""
    return command_line(record.get("command") or (), record)


def again(record: Json, name: str) -> str:
    """The command that makes a patch once more from the facts and settings in it; "" where it cannot be made
    so. `name`: where the patch is."""
    if "on" in record or not isinstance(record.get("config"), Mapping):
        return ""
    base = base_of(record)
    model = f"{base['place']}@{base['commit']}" if base["commit"] else base["place"]
    return f"hubedit apply --from {shlex.quote(name)} --model {shlex.quote(model)}"


def command_line(command: Sequence[str] | str, record: Json) -> str:
    """A command of the record or of a report, fit for a card."""
    base, ref = base_of(record), str((record.get("base") or {}).get("ref") or "")
    split = shlex.split(command) if isinstance(command, str) else [str(word) for word in command]
    words: list[str] = []
    for before, word in zip(["", *split], split, strict=False):
        option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        output = before in _OUTPUTS or option in _OUTPUTS
        if ref and value == ref and not base["commit"]:
            value = base["name"]
        elif ("/" in value or "\\" in value) and (output or not is_hub(value)):
            value = last(value)
        words.append(shlex.quote(line(f"{option}{equals}{value}")))
    return " ".join(words)


def evaluation(report: Json, record: Json) -> list[tuple[str, str]]:
    """Lines of the table "how it was measured"."""
    evaluated: Json = report.get("evaluated") or {}
    rows: dict[str, Any] = {}
    model = line(evaluated.get("model") or "")
    if model:
        # without a commit the model was a folder of that machine
        rows["Model"] = f"{model} at {evaluated['commit']}" if evaluated.get("commit") else last(model)
    if evaluated.get("patch"):
        number_of = f" ({evaluated['patch_id']})" if evaluated.get("patch_id") else ""
        rows["Patch"] = f"{last(str(evaluated['patch']))}{number_of}"
    for name, key in (("Merged model", "merged"), ("Judge", "judge")):
        rows[name] = last(str(evaluated[key])) if evaluated.get(key) else ""
    rows["Computed in"] = ", ".join(line(evaluated[k]) for k in ("dtype", "device") if evaluated.get(k))
    if seconds := number(evaluated.get("seconds")):
        rows["Time"] = f"{seconds:,.0f} s"
    rows["Peak memory"] = _memory(evaluated)
    rows["Date"] = evaluated.get("date")
    versions = evaluated.get("versions")
    if isinstance(versions, Mapping):
        rows["Versions"] = ", ".join(f"{package} {versions[package]}" for package in sorted(versions))
    if evaluated.get("command"):
        rows["Command"] = command_line(evaluated["command"], record)
    rows["Intervals"] = report.get("interval_method")
    return [(name, line(value)) for name, value in rows.items() if value not in (None, "")]


def notes(report: Json, record: Json) -> list[str]:
    """What the evaluation says about its own numbers."""
    stored = report.get("notes") or ()
    found = [stored] if isinstance(stored, str) else list(stored)
    older = record.get("on")
    if isinstance(older, Mapping) and not report.get("evaluated"):
        name = str(older.get("id") or "")[:12]
        found.append(
            f"made on top of an older patch{f' ({name})' if name else ''}: every number before the edit, "
            "perplexity too, is that of the base model with the older patch in effect"
        )
    kept = report.get("on")
    if isinstance(kept, Mapping):
        shares = [number(kept.get(f"success_{side}")) for side in ("before", "after")]
        if shares[0] is not None and shares[1] is not None:
            found.append(
                f"of the {plural(int(number(kept.get('facts')) or 0), 'fact')} of the older patch, "
                f"{percent(shares[0])} were answered "
                f"before the edit and {percent(shares[1])} after it"
            )
    if report.get("interval_method") and not report.get("evaluated"):
        found.append(
            "measured by hubedit apply when it wrote the patch; rephrasings, locality and portability "
            "prompts of the facts file were not used to make the edit"
        )
    if not_asked := (report.get("damage") or {}).get("not_asked"):
        found.append(not_asked)
    return [without_paths(note) for note in found]


def norms(record: Json) -> tuple[bool, list[tuple[int, str, float]]]:
    """(layer, kind, norm of the change) of every site, and whether norms are relative to the weight's."""
    sites: Json = record.get("sites") or {}
    relative = [(s.get("layer"), s.get("kind"), number(s.get("relative_norm"))) for s in sites.values()]
    if relative and all(n is not None for _, _, n in relative):
        return True, sorted((int(layer), str(kind), n) for layer, kind, n in relative if n is not None)
    absolute: list[tuple[int, str, float]] = []
    for module, site in ((record.get("adapter") or {}).get("sites") or {}).items():
        found, norm = re.search(r"\.(\d+)\.", module), number(site.get("norm"))
        if found and norm is not None:
            inside_attention = re.search(r"att", module.rsplit(f".{found[1]}.", 1)[-1])
            absolute.append((int(found[1]), "attention" if inside_attention else "mlp", norm))
    return False, sorted(absolute)


def _memory(record: Json) -> str:
    """`1.2 GB, 14.8 GB of the GPU`."""
    peak = record.get("peak_memory") or {}
    sizes = [(number(peak.get(name)), where) for name, where in (("process", ""), ("device", " of the GPU"))]
    return ", ".join(f"{size / 1e9:.1f} GB{where}" for size, where in sizes if size is not None)


def _with_source(value: str, record: Json, key: str) -> str:
    source = str(record.get(f"{key}_from") or "")
    return f"{value} ({_FROM[key].get(source, source)})" if value and source else value


def _alpha(alpha: Any) -> str:
    if isinstance(alpha, Mapping):
        values = sorted((int(layer), float(share)) for layer, share in alpha.items())
        if values and len({share for _, share in values}) == 1:
            return f"{values[0][1]:.3g}"
        return ", ".join(f"{layer}: {share:.3g}" for layer, share in values)
    return "" if alpha is None else f"{float(alpha):.3g}"


def _portable(value: Any) -> Any:
    """JSON data without local paths."""
    if isinstance(value, Mapping):
        return {str(key): _portable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_portable(item) for item in value]
    return without_paths(value) if isinstance(value, str) else value
