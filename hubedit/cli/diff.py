"""What differs between two models, or between two patches."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from hubedit.cli.output import Output, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hubedit.checkpoint.diff import Changed, Diff

_SHOWN = 60


def diff(
    a: Annotated[str, Argument(metavar="A", help="A model or a patch: a folder, or owner/name[@revision].")],
    b: Annotated[str, Argument(metavar="B", help="Another one of the same kind.")],
    rank: Annotated[
        int, Option("--rank", min=0, max=512, help="Estimate ranks up to this; 0 leaves them out.")
    ] = 128,
    every: Annotated[bool, Option("--all", help="List every difference, not only the largest.")] = False,
    json: Annotated[bool, Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Only how many differ.")] = False,
) -> None:
    """What differs between two models, or between two patches: which tensors, how much, of what rank."""
    sink = Output(json=json, quiet=quiet)

    from hubedit.checkpoint.diff import diff_checkpoints, diff_patches
    from hubedit.checkpoint.read import Checkpoint
    from hubedit.errors import ConfigError
    from hubedit.hub.anything import folder_of
    from hubedit.patch.foreign import load_any

    folders = [folder_of(ref) for ref in (a, b)]
    kinds = [_is_patch(folder) for folder in folders]
    if kinds[0] != kinds[1]:
        names = [ref for ref, patch in zip((a, b), kinds, strict=True) if patch]
        raise ConfigError(f"{names[0]} is a patch, and the other is not", "give two models or two patches")
    with sink.progress() as progress:
        if kinds[0]:
            found = diff_patches(load_any(folders[0]), load_any(folders[1]))
        else:
            models = [Checkpoint.open(folder) for folder in folders]
            found = diff_checkpoints(*models, most_rank=rank, progress=progress)
            for note in (note for each in models for note in each.notes):
                sink.note(note)
    differ = len(found.changed) + len(found.only_a) + len(found.only_b)
    sink.data(
        {"a": a, "b": b, "same": found.same, **vars(found)},
        human=lambda: _tables(found, every),
        brief=str(differ),
    )


def _is_patch(folder: Path) -> bool:
    return (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file()


def _tables(found: Diff, every: bool) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    parts: list[Any] = []
    largest = sorted(found.changed, key=lambda c: (_measured(c), -(c.relative or 0)))
    shown = sorted(found.changed if every else largest[:_SHOWN], key=lambda c: (_measured(c), c.name))
    if shown:
        columns = ("name", "what", "|B - A|", "of |A|", "largest", "rank")
        parts.append(table(columns, [_row(c) for c in shown], right=columns[2:]))
    if len(shown) < len(found.changed):
        parts.append(Text(f"and {len(found.changed) - len(shown)} more (--all lists them)"))
    for side, names in (("A", found.only_a), ("B", found.only_b)):
        if names:
            more = "" if every or len(names) <= _SHOWN else f" and {len(names) - _SHOWN} more"
            parts.append(Text(f"only in {side}: {', '.join(names if every else names[:_SHOWN])}{more}"))
    for side, facts in found.facts.items():
        if facts:
            parts.append(
                Text("\n".join([f"facts only in {side}:", *(f"  {fact}" for fact in facts[:_SHOWN])]))
            )
    parts.append(Text("no difference" if found.same else f"{found.identical} identical"))
    return Group(*parts)


def _measured(c: Changed) -> bool:
    """False for what no share of |A| can be given of: other shapes, unreadable numbers, a zero A."""
    return c.norm == 0 or c.relative is not None


def _row(c: Changed) -> tuple[object, ...]:
    what = []
    if c.shapes[0] != c.shapes[1]:
        what.append(" -> ".join(" x ".join(map(str, shape)) for shape in c.shapes))
    if c.dtypes[0] != c.dtypes[1]:
        what.append(" -> ".join(c.dtypes))
    if c.norm is None:
        return (c.name, ", ".join(what) or c.dtypes[0], "", "", "", "")
    share = "" if c.relative is None else f"{c.relative:.2e}"
    rank = "" if c.rank is None else f">= {c.rank}" if c.capped else str(c.rank)
    return (c.name, ", ".join(what), f"{c.norm:.4g}", share, f"{c.largest:.2e}", rank)
