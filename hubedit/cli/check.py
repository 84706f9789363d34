"""Ask all facts of a patch again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from hubedit.cli.chat import Chat, with_chat
from hubedit.cli.output import Output, table

if TYPE_CHECKING:
    from hubedit.standing import Standing

_MOST = 40


def check(
    patch: Annotated[str, Argument(metavar="PATCH", help="A folder, or owner/name[@revision].")],
    model: Annotated[str, Option("--model", "-m", help="The unedited model: a folder or repo[@revision].")],
    out: Annotated[
        Path | None,
        Option("--out", "-o", metavar="FILE", help="Write the facts that no longer hold to a facts file."),
    ] = None,
    force: Annotated[bool, Option("--force", help="Replace the file of --out when it exists.")] = False,
    strict: Annotated[bool, Option("--strict", help="Exit code 3 when facts no longer hold.")] = False,
    device: Annotated[str, Option("--device", help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    dtype: Annotated[str, Option("--dtype", help="auto, float32, float16 or bfloat16.")] = "auto",
    trust_remote_code: Annotated[
        bool, Option("--trust-remote-code", help="Run Python code from the model's repository.")
    ] = False,
    json: Annotated[bool, Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Only the prompts that no longer hold.")] = False,
) -> None:
    """Ask all facts of a patch again, in the chat template where it was made in one, and name those that no
    longer hold."""
    sink = Output(json=json, quiet=quiet)

    from hubedit.cli.place import check_new_file, unwritable
    from hubedit.errors import ConfigError, StrictError
    from hubedit.facts import dump_facts
    from hubedit.folder import write_file
    from hubedit.hub import patch_folder
    from hubedit.model.load import load
    from hubedit.patch import Patch
    from hubedit.report.markup import plural
    from hubedit.standing import standing

    if out is not None:
        check_new_file(out, force=force)
    loaded = Patch.load(patch_folder(patch))
    if not loaded.facts:
        raise ConfigError(
            "the patch was saved without its facts", "hubedit eval --facts asks those of a file"
        )
    with sink.progress() as progress:
        progress.start("loading the model")
        em = load(model, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
        progress.finish(f"{em.num_layers} layers on {em.device}")
        loaded.fits(em)
        em = with_chat(sink, em, Chat.auto, "", loaded.record)
        progress.start("asking", len(loaded.facts), "facts")
        found = standing(em, loaded)
        progress.finish(plural(len(found.outcomes), "fact"))
    brief = "\n".join(fact.prompt for fact in found.failed)
    sink.data(_value(found), human=lambda: _tables(found), brief=brief)
    if out is not None:
        try:
            write_file(out, dump_facts(found.failed).encode())
        except OSError as error:
            raise unwritable(out, error) from error
        sink.note(f"written to {out}" if found.failed else f"all hold: {out} is empty")
    if found.failed:
        sink.note(f"hubedit apply --on {patch} --again --model {model} edits them again")
        if strict:
            total = plural(len(found.outcomes), "fact")
            raise StrictError(f"{len(found.failed)} of {total} no longer hold")


def _value(found: Standing) -> dict[str, Any]:
    return {
        "facts": len(found.outcomes),
        "hold": len(found.outcomes) - len(found.failed),
        "steps": [{"id": name[:12], "facts": asked, "hold": held} for name, asked, held in found.steps],
        "failed": [
            {"id": o.fact.id, "prompt": o.fact.prompt, "target": o.fact.target, "says": o.after}
            for o in found.outcomes
            if not o.success
        ],
    }


def _tables(found: Standing) -> Any:
    from rich.console import Group
    from rich.text import Text

    steps = [
        (str(n), name[:12], str(asked), f"{100 * held / asked:.0f} %" if asked else "")
        for n, (name, asked, held) in enumerate(found.steps, 1)
    ]
    failed = [(o.fact.prompt, o.fact.target, o.after) for o in found.outcomes if not o.success]
    parts: list[Any] = [
        table(("step", "id", "facts", "hold"), steps, right=("step", "facts", "hold")),
        Text(),
    ]
    if failed:
        shown = table(("prompt", "target", "says"), failed[:_MOST], title="no longer hold")
        more = f"and {len(failed) - _MOST:,} more: --json or --out" if len(failed) > _MOST else ""
        parts += [shown, Text(more)] if more else [shown]
    else:
        parts.append(
            Text("all hold" if found.outcomes else "no fact was asked: none fits the model's context")
        )
    return Group(*parts)
