"""Merge patches into a model's weights, shard by shard, without loading it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from hubedit.cli.facts import Conflict
from hubedit.cli.output import Output, table
from hubedit.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from hubedit.checkpoint.merge import MergePlan, MergeResult
    from hubedit.checkpoint.merge_record import Record


class Link(StrEnum):
    """How unchanged files get into the new folder."""

    auto = "auto"
    copy = "copy"


class Dtype(StrEnum):
    """What the merged model's weights are stored in."""

    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"


_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)
_POWER = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_SHOWN = 40


def merge(
    patches: Annotated[list[str], Argument(metavar="PATCH...", help="Folders, or owner/name[@revision].")],
    out: Annotated[Path, Option("--out", "-o", help="The merged model's folder.")],
    model: Annotated[
        str | None,
        Option("--model", "-m", help="A folder or repo[@revision] (default: the base the patch names)."),
    ] = None,
    link: Annotated[
        Link, Option("--link", help="Unchanged files: auto shares them where it is safe, copy copies them.")
    ] = Link.auto,
    dtype: Annotated[
        Dtype | None, Option("--dtype", help="Convert the whole model (default: as it is stored).")
    ] = None,
    max_shard_size: Annotated[
        str | None, Option("--max-shard-size", help="Split it anew, such as 5GB (default: the same files).")
    ] = None,
    keep_originals: Annotated[
        bool | None,
        Option(
            "--keep-originals/--no-keep-originals",
            help="Keep the base's bytes of touched tensors, to revert without the base.  "
            "[default: only for a local base]",
            show_default=False,
        ),
    ] = None,
    on_conflict: Annotated[
        Conflict,
        Option("--on-conflict", help="A fact that two patches edit: stop, or the first or last counts."),
    ] = Conflict.stop,
    push: Annotated[
        str, Option("--push", metavar="REPO", help="Push the model to the Hub, private if new.")
    ] = "",
    dry_run: Annotated[bool, Option("--dry-run", help="Only show what would be written.")] = False,
    json: Annotated[bool, Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Only warnings, and the path.")] = False,
) -> None:
    """Merge patches into a model's weights, shard by shard, without loading it."""
    sink = Output(json=json, quiet=quiet)
    size = shard_size(max_shard_size) if max_shard_size is not None else None

    alone_in_a_thread()
    from hubedit.api.merging import prepare_merge
    from hubedit.checkpoint.merge import MergeOptions
    from hubedit.cli.push import destination, send

    options = MergeOptions(
        link.value, dtype.value if dtype else None, size, keep_originals, on_conflict.value
    )
    # a login that may not write, or a repository that is not there, is refused before the work
    place = destination(push, "model") if push else None
    with sink.progress() as progress:
        made = prepare_merge(patches, out, base=model or "", options=options, progress=progress)
        done = None if dry_run else made.write(progress)
    if done is None:
        plan = made.plan()
        sink.data({"dry_run": True, **vars(plan)}, human=lambda: _planned(plan), brief=str(out))
        sink.note("nothing was written: leave out --dry-run to do it")
        warnings: Sequence[str] = made.warnings
    else:
        sink.data(_value(done), human=lambda: realised(done.record), brief=str(done.path))
        sink.note(f"merged model: {done.path}")
        if done.left_out:
            # nothing is lost: they stay where they are
            sink.note(
                "not taken over from the base (other copies of its weights, or no part of the model): "
                + ", ".join(done.left_out)
            )
        warnings = done.warnings
    for line in warnings:
        sink.warn(line)
    if place is not None and done is not None:
        send(sink, done.path, place)


def alone_in_a_thread() -> None:
    """numpy's products of thin factors gain nothing from threads, which would wait for each other busily;
    the work is spread over tensors instead. Of effect before numpy is imported."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def realised(record: Record) -> Table:
    """Each touched tensor: the size of its change, and what rounding left of it."""
    names = sorted(record.tensors)
    rows: list[tuple[object, ...]] = [
        (name, t.dtype, f"{t.norm:.4g}", f"{100 * t.kept:.1f} %")
        for name, t in ((name, record.tensors[name]) for name in names[:_SHOWN])
    ]
    if len(names) > _SHOWN:
        rows.append((f"and {len(names) - _SHOWN} more", "", "", ""))
    return table(("tensor", "stored as", "change", "energy kept"), rows, right=("change", "energy kept"))


def shard_size(text: str) -> int:
    """Bytes of `5GB`, `500 MB`, `2GiB` or `1000000`. Raises ConfigError."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ConfigError(f"{text!r} is no size", "such as --max-shard-size 5GB")
    number, unit, binary = found.groups()
    return int(float(number) * (1024 if binary else 1000) ** _POWER[unit.lower()])


def _value(done: MergeResult) -> dict[str, Any]:
    return {
        "path": done.path,
        "base": {"ref": done.record.base, "commit": done.record.commit},
        "patches": done.record.patches,
        "tensors": done.record.tensors,
        "files": done.files,
        "originals": done.record.originals,
        "left_out": done.left_out,
        "warnings": done.warnings,
    }


def _planned(plan: MergePlan) -> Table:
    from hubedit.cli.applied import size, table_of

    return table_of(
        [
            ("patches", ", ".join(plan.patches)),
            ("tensors to change", f"{len(plan.tensors)} in {len(set(plan.tensors.values()))} files"),
            ("files written anew", f"{len(plan.rewritten)}, {size(plan.rewritten_bytes)}"),
            ("files shared or copied", f"{len(plan.untouched)}, {size(plan.untouched_bytes)}"),
            ("originals kept", size(plan.originals_bytes) if plan.originals_bytes else "none"),
            ("out", str(plan.out)),
        ]
    )
