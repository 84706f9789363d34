"""The edits of a patch or a merged model, in order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from hubedit.cli.output import Output, table
from hubedit.errors import HubError
from hubedit.report.markup import plural

if TYPE_CHECKING:
    from hubedit.hub.history import History, Step

_FACTS = 20


def log(
    ref: Annotated[str, Argument(metavar="REPO|DIR", help="Of a patch or a merged model.")],
    all_facts: Annotated[bool, Option("--all", help="Show every fact.")] = False,
    json: Annotated[bool, Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Only one line a patch.")] = False,
) -> None:
    """Show the edits of a patch or a merged model, step by step: facts, dates, figures; at the Hub also its
    commits."""
    sink = Output(json=json, quiet=quiet)

    from hubedit.cli.push import hide_progress_bars
    from hubedit.hub.history import history

    if "/" not in ref.partition("@")[0] and not Path(ref).exists():
        raise HubError(f"no repository {ref}, and no such folder", f"give its owner too, as in you/{ref}")
    hide_progress_bars(True)
    found = history(ref)
    brief = "\n".join(
        " ".join(part for part in (step.id, step.date[:10], plural(step.count, "fact"), step.base) if part)
        for step in found.steps
    )
    sink.data(found, human=lambda: _tables(found, all_facts), brief=brief)
    if not found.steps:
        sink.note(f"{found.ref} holds no edits")


def _tables(found: History, everything: bool) -> Any:
    from rich.console import Group
    from rich.text import Text

    several = any(step.older or step.whole for step in found.steps)
    parts: list[Any] = [_summary(found.steps), Text()] if several else []
    for number, step in enumerate(found.steps, 1):
        shown = step.facts if everything else step.facts[:_FACTS]
        rows: list[tuple[object, ...]] = [(prompt, target) for prompt, target in shown]
        if len(shown) < len(step.facts):
            rows.append((f"and {len(step.facts) - len(shown):,} more: --all", ""))
        parts += [Text(_title(number, step)), table(("prompt", "target"), rows), Text()]
    if found.commits:
        lines = [(c.date[:16].replace("T", " "), c.commit[:8], c.author, c.title) for c in found.commits]
        parts.append(table(("date", "commit", "by", "title"), lines))
    return Group(*parts)


def _summary(steps: Sequence[Step]) -> Any:
    """One line a step of a patch that was made in several."""
    lines = []
    for number, step in enumerate(steps, 1):
        before, after = (step.older.get(f"success_{when}") for when in ("before", "after"))
        held = (
            f"{100 * before:.0f} -> {100 * after:.0f} %" if before is not None and after is not None else ""
        )
        asked = f" of {step.older['asked']:.0f}" if held and "asked" in step.older else ""
        # of a step whose facts were all edited again later, nothing is left that could hold
        success = step.metrics.get("success") if step.count else None
        lines.append(
            (
                str(number),
                step.id,
                step.method,
                str(step.count),
                f"{100 * success:.0f} %" if success is not None else "",
                *map(_size, (step.drift, step.whole.get("drift"), step.whole.get("norm"))),
                held + asked,
            )
        )
    sizes = ("drift", "drift so far", "norm so far")
    names = ("step", "id", "method", "facts", "success", *sizes, "older facts hold")
    return table(names, lines, right=("step", "facts", "success", *sizes))


def _size(value: float | None) -> str:
    return f"{value:.2g}" if value is not None else ""


def _title(number: int, step: Step) -> str:
    figures = ", ".join(f"{name} {100 * value:.0f} %" for name, value in step.metrics.items() if step.count)
    commit = f"@{step.base_commit[:8]}" if step.base_commit else ""
    name = f"{step.name} ({step.id})" if step.name and step.id else step.name or step.id or "patch"
    parts = [
        f"{number}. {name}",
        step.date[:10],
        f"{plural(step.count, 'fact')} for {step.base}{commit}",
        figures,
    ]
    return ", ".join(part for part in parts if part)
