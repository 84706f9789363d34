"""What a patch changes, or which patches were merged into a model."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Exit, Option

from hubedit.cli.output import Output, mark, table
from hubedit.report.markup import plural

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hubedit.checkpoint.fit import Fit
    from hubedit.checkpoint.stack import Stack
    from hubedit.patch.summary import Summary

_FACTS = 20
# of the provenance, what only --json shows
_LONG = ("config", "statistics", "extracted")
_ROWS = 60


def inspect(
    patch: Annotated[
        str, Argument(metavar="PATCH|DIR", help="A patch, a LoRA adapter, or a model with merged patches.")
    ],
    model: Annotated[
        str | None, Option("--model", "-m", help="Check whether the patch fits this model.")
    ] = None,
    every: Annotated[bool, Option("--all", help="All facts and modules.")] = False,
    json: Annotated[bool, Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Only the id, or the ids of the stack.")] = False,
) -> None:
    """What a patch changes, where it comes from and whether it fits; or the patches merged into a model."""
    sink = Output(json=json, quiet=quiet)

    from hubedit.errors import CheckpointError, ConfigError
    from hubedit.hub.anything import folder_of
    from hubedit.model.fetch import find

    folder = folder_of(patch, edited=True)
    if not (folder / "adapter_config.json").is_file() and (folder / "config.json").is_file():
        from hubedit.checkpoint.stack import Stack

        if model is not None:
            raise ConfigError(
                f"{patch} is a model", "--model goes with a patch; hubedit diff compares two models"
            )
        stack = Stack.open(folder)
        if stack.record is None:
            raise CheckpointError(f"hubedit merged no patch into {patch}", "hubedit diff compares two models")
        changed = stack.changed()
        sink.data(
            _stack_value(stack, folder, changed),
            human=lambda: _stack(stack, every, changed),
            brief="\n".join(entry.id for entry in stack.record.patches),
        )
        for name in changed[:3]:
            sink.warn(f"{name} was changed after the merge")
        return

    from hubedit.checkpoint.fit import fit
    from hubedit.patch.doubts import doubts, too_wide
    from hubedit.patch.summary import summarise

    summary, loaded = summarise(folder)
    fitted = fit(loaded, find(model)) if model is not None else None
    sink.data(_value(summary, fitted), human=lambda: _summary(summary, fitted, every), brief=summary.id)
    for doubt in (*doubts(loaded), too_wide(loaded)):
        if doubt:
            sink.warn(doubt)
    if fitted is not None and not fitted.fits:
        raise Exit(1)  # as merge and ask refuse it; the reasons have been shown


def _value(summary: Summary, fitted: Fit | None) -> dict[str, Any]:
    from hubedit.facts import to_record

    value = {**vars(summary), "facts": [to_record(fact) for fact in summary.facts]}
    if fitted is not None:
        value["fit"] = {"fits": fitted.fits, **vars(fitted)}
    return value


def _stack_value(stack: Stack, folder: Path, changed: list[str]) -> dict[str, Any]:
    from hubedit.facts import to_record

    record = stack.record
    assert record is not None
    facts = [[to_record(fact) for fact in member.patch.facts] for member in stack.members]
    return {
        "path": folder,
        "base": {"ref": record.base, "commit": record.commit},
        "patches": [
            {**vars(entry), "facts": list(texts), "facts_count": entry.facts}
            for entry, texts in zip(record.patches, facts, strict=True)
        ],
        "tensors": record.tensors,
        "converted": record.converted,
        "originals": record.originals,
        "changed_since": changed,
        "packages": record.packages,
    }


def _summary(s: Summary, fitted: Fit | None, every: bool) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from hubedit.cli.applied import size, table_of

    lines = [
        ("patch", s.id[:12]),
        ("made by", s.origin),
        ("base", f"{s.base or 'not named'}{f' at {s.commit}' if s.commit else ''}"),
        ("family", s.family),
        ("edited model", _edited(s)),
        ("facts", str(s.facts_count) + ("" if s.facts or not s.facts_count else " (left out of the patch)")),
        ("layers", ", ".join(map(str, s.layers))),
        ("alpha", _shares(s.alpha)),
        ("rank", str(s.rank)),
        ("size", size(s.size) + (f", {size(s.size // s.facts_count)} a fact" if s.facts_count > 1 else "")),
        *((f"metric {name}", f"{value:.3g}") for name, value in _numbers(s.metrics)),
        *((key, _short(value)) for key, value in s.provenance.items() if key not in _LONG),
        *((f"part {n}", _part(part)) for n, part in enumerate(s.composed_of, 1)),
    ]
    parts: list[Any] = [table_of([(name, value) for name, value in lines if value])]
    modules = s.modules if every else s.modules[:_ROWS]
    rows = [
        (
            m.module,
            m.rank,
            m.effective_rank,
            f"{m.norm:.4g}",
            _relative(m.relative),
            f"{100 * m.energy:.2f} %",
        )
        for m in modules
    ]
    columns = ("module", "rank", "for 99 %", "change", "of the weight", "energy kept")
    parts += [Text(), table(columns, rows, right=columns[1:])]
    if len(modules) < len(s.modules):
        parts.append(Text(f"and {len(s.modules) - len(modules)} more (--all)"))
    if s.facts:
        shown = s.facts if every else s.facts[:_FACTS]
        parts += [Text(), table(("prompt", "target", "ground truth"), _facts(shown))]
        if len(shown) < len(s.facts):
            parts.append(Text(f"and {len(s.facts) - len(shown)} more (--all)"))
    if fitted is not None:
        parts += [Text(), _fit(fitted)]
    return Group(*parts)


def _stack(stack: Stack, every: bool, changed: list[str]) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from hubedit.cli.applied import table_of

    record = stack.record
    assert record is not None
    lines = [
        ("base", f"{record.base}{f' at {record.commit}' if record.commit else ''}"),
        (
            "tensors",
            f"{len(record.tensors)} changed" + (f", as {record.converted}" if record.converted else ""),
        ),
        ("originals", "kept in the folder" if record.originals else "not kept"),
        ("energy kept", f"at least {100 * min(t.kept for t in record.tensors.values()):.1f} % a tensor"),
        ("as merged", "no" if changed else "yes"),
    ]
    rows = [(n, e.id, e.name, e.facts, len(e.tensors)) for n, e in enumerate(record.patches, 1)]
    parts: list[Any] = [
        table_of(lines),
        Text(),
        table(("", "patch", "name", "facts", "tensors"), rows, right=("facts", "tensors")),
    ]
    facts = [(n, *row) for n, m in enumerate(stack.members, 1) for row in _facts(m.patch.facts)]
    shown = facts if every else facts[:_FACTS]
    if shown:
        parts += [Text(), table(("patch", "prompt", "target", "ground truth"), shown)]
    if len(shown) < len(facts):
        parts.append(Text(f"and {len(facts) - len(shown)} more (--all)"))
    return Group(*parts)


def _facts(facts: Any) -> list[tuple[object, ...]]:
    return [(fact.prompt, fact.target, ", ".join(fact.ground_truth)) for fact in facts]


def _fit(fitted: Fit) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    lines: list[Any] = [Text.assemble(f"fits {fitted.model}: ", mark(fitted.fits))]
    lines += [Text(f"  {problem}") for problem in fitted.problems]
    if fitted.unverified:
        lines.append(Text(f"  only name and shape were checked of {len(fitted.unverified)} modules"))
    return Group(*lines)


def _edited(s: Summary) -> str:
    """The model that an extracted patch was made from."""
    made = s.provenance.get("extracted")
    source = made.get("from") if isinstance(made, Mapping) else None
    return str(source.get("ref", "")) if isinstance(source, Mapping) else ""


def _shares(alpha: Mapping[str, float]) -> str:
    if len(set(alpha.values())) == 1:
        return f"{next(iter(alpha.values())):.3g}"
    return ", ".join(f"{layer}: {share:.3g}" for layer, share in alpha.items())


def _numbers(metrics: Mapping[str, Any]) -> list[tuple[str, float]]:
    return [(n, float(v)) for n, v in metrics.items() if isinstance(v, (int, float))]


def _relative(value: float | None) -> str:
    return "" if value is None else f"{value:.2e}"


def _part(part: Mapping[str, Any]) -> str:
    count = part.get("facts")
    facts = plural(count if isinstance(count, int) else 0, "fact")
    return f"{str(part.get('id', ''))[:12]}, {facts}, rank {part.get('rank', '?')}"


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_short(item)}" for key, item in value.items() if item not in (None, {}, []))
    if isinstance(value, list):
        return shlex.join(map(str, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
