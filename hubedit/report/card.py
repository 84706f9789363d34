"""The card of a patch (README.md): a pure function of its record and its report.

What was not measured is absent. No local path gets into a card: a local base is its folder's name.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from hubedit.report.templates import render

_FOLD = 20
_MOST = 500
_NAMES = {
    "success": "Success: the prompt gives the new answer",
    "generalisation": "Generalisation: rephrasings give it",
    "locality": "Locality: other prompts about the same subject are unchanged",
    "neighbourhood": "Neighbourhood: prompts about other subjects are unchanged",
    "portability": "Portability: what follows from the edit is answered",
}
_HUB = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
_FILE = re.compile(r"\.(jsonl?|csv|txt|md|safetensors|ya?ml)$")


def patch_card(
    record: Mapping[str, Any],
    report: Mapping[str, Any] | None = None,
    *,
    with_facts: bool = True,
    name: str = "patch",
    commit: str = "",
) -> str:
    """Markdown with the Hub's metadata.

    `record`: `Patch.full_record()`; used where they are there: `base`, `facts.count`, `adapter`,
    `method`, `layers`, `alpha` (a number, or one a layer), `truncation`, `seed`, `seconds`, `command`
    (a list of words), `packages`. `report`: `EditReport.to_json()`, and where measured
    `metrics_before`, `perplexity_before`, `perplexity_after`. `with_facts`: False keeps the facts
    themselves out of it. `name`, `commit`: where the patch is, for the loading code.
    """
    report = report or {}
    outcomes: Sequence[Mapping[str, Any]] = report.get("facts", ())
    base = _base(record.get("base", {}))
    shown = outcomes[:_MOST] if with_facts else ()
    return render(
        "patch_card.md.j2",
        {
            "base": base,
            "patch": {"name": name if _is_hub(name) else _last(name), "commit": commit},
            "version": record.get("packages", {}).get("hubedit", ""),
            "facts": {"count": _count(record, outcomes)},
            "rows": shown,
            "left": len(outcomes) - len(shown) if with_facts else 0,
            "folded": len(shown) > _FOLD,
            "measured": bool(outcomes) and all("after" in outcome for outcome in outcomes),
            "failed": sum(1 for outcome in outcomes if outcome.get("success") is False),
            "summary": _summary(report),
            "made": _made(record),
            "command": reproduction(
                record.get("command", ()), str(record.get("base", {}).get("ref", "")), base
            ),
        },
    )


def reproduction(command: Sequence[str], ref: str, base: Mapping[str, str]) -> str:
    """The command line with every local path cut to its last part; "" for no command."""
    words: list[str] = []
    for word in command:
        option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        if value == ref and not base["commit"]:
            value = base["name"]
        elif ("/" in value or "\\" in value) and not _is_hub(value):
            value = _last(value)
        words.append(shlex.quote(f"{option}{equals}{value}"))
    return " ".join(words)


def _base(base: Mapping[str, Any]) -> dict[str, str]:
    ref, commit = str(base.get("ref", "")), str(base.get("commit") or "")
    return {"name": ref if commit else _last(ref) or "the base model", "commit": commit}


def _count(record: Mapping[str, Any], outcomes: Sequence[object]) -> int:
    return int(record.get("facts", {}).get("count", len(outcomes)))


def _summary(report: Mapping[str, Any]) -> list[dict[str, str]]:
    """Lines of the table "before and after"."""
    lines: list[dict[str, str]] = []
    before, counts = report.get("metrics_before", {}), report.get("counts", {})
    for metric, value in report.get("metrics", {}).items():
        prompts = f" ({counts[metric]:,})" if metric in counts else ""
        was = _percent(before[metric]) if metric in before else ""
        lines.append({"name": _NAMES.get(metric, metric) + prompts, "before": was, "after": _percent(value)})
    if report.get("harmonic_mean") is not None:
        lines.append({"name": "Harmonic mean", "before": "", "after": _percent(report["harmonic_mean"])})
    chances = [
        (o["probability_before"], o["probability_after"]) for o in report.get("facts", ()) if _chances(o)
    ]
    if chances:
        old, new = (sum(column) / len(chances) for column in zip(*chances, strict=True))
        lines.append(
            {"name": "Mean probability of the target", "before": f"{old:.3g}", "after": f"{new:.3g}"}
        )
    old, new = report.get("perplexity_before"), report.get("perplexity_after")
    if old is not None and new is not None:
        lines.append({"name": "Perplexity on other text", "before": f"{old:.4g}", "after": f"{new:.4g}"})
    return lines


def _made(record: Mapping[str, Any]) -> list[dict[str, str]]:
    """Lines of the table "how it was made"."""
    adapter, lines = record.get("adapter", {}), {}
    lines["Method"] = record.get("method")
    lines["Layers"] = ", ".join(map(str, record.get("layers", ())))
    lines["Attention's share (alpha)"] = _alpha(record.get("alpha"))
    if adapter.get("sites"):
        lines["Edited weights"] = ", ".join(adapter["sites"])
    lines["Rank"] = adapter.get("rank")
    if kept := record.get("truncation", {}).get("energy"):
        lines["Energy kept by truncation"] = f"at least {_percent(min(kept.values()))} a weight"
    lines["Seed"] = record.get("seed")
    if record.get("seconds"):
        lines["Time"] = f"{float(record['seconds']):,.0f} s"
    versions = record.get("packages", {})
    lines["Versions"] = ", ".join(f"{package} {versions[package]}" for package in sorted(versions))
    return [{"name": key, "value": str(value)} for key, value in lines.items() if value not in (None, "")]


def _alpha(alpha: Any) -> str | None:
    if isinstance(alpha, Mapping):
        values = sorted((int(layer), float(share)) for layer, share in alpha.items())
        if len({share for _, share in values}) == 1:
            return f"{values[0][1]:.3g}"
        return ", ".join(f"{layer}: {share:.3g}" for layer, share in values) or None
    return None if alpha is None else f"{float(alpha):.3g}"


def _chances(outcome: Mapping[str, Any]) -> bool:
    return all(outcome.get(key) is not None for key in ("probability_before", "probability_after"))


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _is_hub(value: str) -> bool:
    """Whether the text can only be the name of a Hub repository, not a path."""
    return bool(_HUB.fullmatch(value)) and value[0] not in "./~" and not _FILE.search(value)


def _last(path: str) -> str:
    """The last part of a path, whichever system wrote it."""
    parts = [part for part in re.split(r"[/\\]", path) if part not in ("", ".", "..", "~")]
    return parts[-1] if parts else ""
