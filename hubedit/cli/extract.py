"""Make a patch from a model and an edited copy of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from hubedit.cli.output import Output, table

if TYPE_CHECKING:
    from rich.table import Table

    from hubedit.checkpoint.extract import Extracted

_SHOWN, _NAMED = 60, 3
_LITTLE = 0.99


def extract(
    base: Annotated[str, Argument(metavar="BASE", help="The unedited model: a folder or repo[@revision].")],
    edited: Annotated[str, Argument(metavar="EDITED", help="The edited one, whichever tool made it.")],
    out: Annotated[Path, Option("--out", "-o", help="The patch's folder.")],
    rank: Annotated[
        int,
        Option(
            "--rank",
            min=0,
            help="Of every module; 0: the smallest that keeps 99.9 % of the change, at most 512.",
        ),
    ] = 0,
    partial: Annotated[
        bool, Option("--partial", help="Leave out changes that no adapter can hold (norms, embeddings).")
    ] = False,
    force: Annotated[bool, Option("--force", help="Replace an older patch at --out.")] = False,
    json: Annotated[bool, Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Only warnings, and the path.")] = False,
) -> None:
    """Make a patch from a model and an edited copy of it, by truncated singular value decomposition."""
    sink = Output(json=json, quiet=quiet)

    from hubedit.checkpoint.extract import extract as run
    from hubedit.model.fetch import find
    from hubedit.pipeline import check_free
    from hubedit.report.files import Source, shown_files

    check_free(out, force)
    with sink.progress() as progress:
        found = run(find(base), find(edited), rank=rank, partial=partial, progress=progress)
    files = shown_files(Source(found.patch.full_record(), {}, out.resolve().name), page=False)
    found.patch.save(out, files=files, overwrite=force)
    sink.data(_value(found, out), human=lambda: _summary(found), brief=str(out))
    sink.note(f"patch: {out} (rank {found.patch.rank})")
    _warn(sink, found)


def _warn(sink: Output, found: Extracted) -> None:
    from hubedit.patch.doubts import too_wide

    if found.left_out:
        sink.warn(
            f"{len(found.left_out)} changed tensors are left out, so the patch is not the whole edit: "
            f"{', '.join(sorted(found.left_out)[:_NAMED])}"
            + (f" and {len(found.left_out) - _NAMED} more (--json)" if len(found.left_out) > _NAMED else "")
        )
    if resized := sorted(name for name, norm in found.left_out.items() if norm is None):
        sink.warn(
            f"the vocabularies differ in size ({', '.join(resized)}): the patch is for the base's, without "
            "the new or removed tokens"
        )
    for note in found.notes:
        sink.note(note)
    if wide := too_wide(found.patch):
        sink.warn(wide)
    little = {m: kept for m, kept in found.energy.items() if kept < _LITTLE and m not in found.beyond}
    if little:
        worst = min(little, key=lambda module: little[module])
        sink.warn(
            f"{len(little)} modules keep less than {100 * _LITTLE:.0f} % of their change "
            f"(least: {worst}, {100 * little[worst]:.1f} %); a higher --rank keeps more"
        )
    if found.beyond:
        kept = min(found.energy[module] for module in found.beyond)
        sink.note(
            f"what is left of {len(found.beyond)} modules is as small as the rounding of the stored weights "
            f"(kept: at least {100 * kept:.2f} %)"
        )


def _value(found: Extracted, out: Path) -> dict[str, Any]:
    return {
        "path": out,
        "rank": found.patch.rank,
        "modules": {
            module: {"rank": factor.rank, "norm": factor.norm(), "energy": found.energy[module]}
            for module, factor in found.patch.factors.items()
        },
        "left_out": found.left_out,
        "rounding_only": found.beyond,
    }


def _summary(found: Extracted) -> Table:
    rows: list[tuple[object, ...]] = [
        (module, factor.rank, f"{factor.norm():.4g}", f"{100 * found.energy[module]:.2f} %")
        for module, factor in found.patch.factors.items()
    ]
    if len(rows) > _SHOWN:
        rows = [*rows[:_SHOWN], (f"and {len(rows) - _SHOWN} more", "", "", "")]
    return table(("module", "rank", "change", "energy kept"), rows, right=("rank", "change", "energy kept"))
