"""Add patches of one base into one patch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from hubedit.cli.facts import Conflict
from hubedit.cli.output import Output
from hubedit.errors import ConfigError
from hubedit.report.markup import plural

if TYPE_CHECKING:
    from rich.table import Table

    from hubedit.patch import Patch
    from hubedit.patch.compose import Composed

_SHOWN = 5


def compose(
    patches: Annotated[list[str], Argument(metavar="PATCH...", help="Folders, or owner/name[@revision].")],
    out: Annotated[Path, Option("--out", "-o", help="The new patch's folder.")],
    on_conflict: Annotated[
        Conflict,
        Option("--on-conflict", help="A fact that two patches edit: stop, or the last or first counts."),
    ] = Conflict.stop,
    rank: Annotated[int, Option("--rank", min=0, help="Truncate the sum to this rank; 0 is exact.")] = 0,
    no_facts: Annotated[
        bool, Option("--no-facts", help="Keep the facts themselves out of the patch.")
    ] = False,
    force: Annotated[bool, Option("--force", help="Replace an older patch at --out.")] = False,
    json: Annotated[bool, Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Only warnings, and the path.")] = False,
) -> None:
    """Add patches of one base into one patch: exactly, in the order given."""
    sink = Output(json=json, quiet=quiet)
    if len(patches) < 2:
        raise ConfigError("compose needs at least two patches", "hubedit compose P1 P2 --out P")

    from hubedit.facts import to_record
    from hubedit.folder import check_free
    from hubedit.hub.pull import patch_folder
    from hubedit.patch.compose import composed
    from hubedit.patch.foreign import load_any
    from hubedit.patch.value import RECORD
    from hubedit.report.card import patch_card

    check_free(out, RECORD, overwrite=force)
    loaded = [load_any(patch_folder(ref)) for ref in patches]
    found = composed(loaded, on_conflict=on_conflict.value, rank=rank, names=patches)
    patch = found.patch
    facts = {"facts": [to_record(fact) for fact in patch.facts]}
    card = patch_card(patch.full_record(), facts, with_facts=not no_facts, name=out.name)
    patch.save(out, with_facts=not no_facts, files={"README.md": card.encode()}, overwrite=force)
    sink.data(_value(found, out, patches), human=lambda: _summary(found, len(patches)), brief=str(out))
    sink.note(f"patch: {out}")
    _warn(
        sink,
        found,
        patches,
        loaded,
    )


def _warn(sink: Output, found: Composed, names: list[str], loaded: list[Patch]) -> None:
    from hubedit.patch.doubts import doubts, too_wide

    overlaps = [c for c in found.conflicts if c.kind == "overlap"]
    for conflict in overlaps[:_SHOWN]:
        sink.warn(f"{conflict.describe(names)}; {conflict.stronger(names)}; test both with hubedit eval")
    if len(overlaps) > _SHOWN:
        sink.warn(f"{len(overlaps) - _SHOWN} more pairs answer to the same input")
    for name, part in zip(names, loaded, strict=True):
        if not part.facts:
            sink.warn(f"{name} holds no facts, so contradictions with it cannot be seen")
        for doubt in doubts(part):
            sink.warn(f"{name}: {doubt}")
    if wide := too_wide(found.patch):
        sink.warn(wide)


def _value(found: Composed, out: Path, names: list[str]) -> dict[str, Any]:
    return {
        "path": out,
        "patches": names,
        "facts": len(found.patch.facts),
        "rank": found.patch.rank,
        "modules": {module: factor.rank for module, factor in found.patch.factors.items()},
        "energy": found.energy,
        "dropped": [fact.prompt for fact in found.dropped],
        "conflicts": [
            {
                "kind": c.kind,
                "patches": [names[c.first], names[c.second]],
                "prompts": [fact.prompt for fact in c.facts],
                "targets": [fact.target for fact in c.facts],
                "similarity": c.similarity,
                "module": c.module,
            }
            for c in found.conflicts
        ],
    }


def _summary(found: Composed, count: int) -> Table:
    from hubedit.cli.applied import size, table_of

    patch = found.patch
    lines = [
        ("patches", str(count)),
        ("facts", str(len(patch.facts))),
        ("modules", str(len(patch.factors))),
        ("rank", str(patch.rank)),
        ("size", size(patch.size)),
    ]
    if found.energy:
        lines.append(("energy kept", f"at least {100 * min(found.energy.values()):.2f} % a module"))
    if found.dropped:
        lines.append(("taken out", f"{plural(len(found.dropped), 'fact')} that gave way to another"))
    return table_of(lines)
