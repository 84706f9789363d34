"""Does hubedit fit this model and this machine?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from rich.text import Text
from typer import Argument, Exit, Option

from hubedit.cli.output import Output, table

if TYPE_CHECKING:
    from hubedit.doctor import Diagnosis

_MARKS = {"ok": ("ok", "green"), "note": ("note", "yellow"), "problem": ("problem", "red")}


def doctor(
    model: Annotated[str, Argument(metavar="MODEL", help="A folder or repo[@revision].")],
    device: Annotated[str, Option("--device", help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    dtype: Annotated[str, Option("--dtype", help="auto, float32, float16 or bfloat16.")] = "auto",
    trust_remote_code: Annotated[
        bool, Option("--trust-remote-code", help="Run Python code from the model's repository.")
    ] = False,
    json: Annotated[bool, Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Only ok, or problem.")] = False,
) -> None:
    """Does hubedit fit this model and this machine? What to do about each problem; exit code 1 if not."""
    from hubedit.doctor import diagnose

    sink = Output(json=json, quiet=quiet)
    found = diagnose(model, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
    value = {
        "model": found.model,
        "ok": found.ok,
        "findings": found.findings,
        "plan": found.plan,
        "seconds": found.plan.cost.total if found.plan is not None else None,
        "free_memory": found.memory,
        "readers": found.readers,
    }
    sink.data(value, human=lambda: _shown(found), brief="ok" if found.ok else "problem")
    if not found.ok:
        raise Exit(1)


def _shown(found: Diagnosis) -> Any:
    from rich.console import Group

    def verdict(name: str) -> Text:
        text, style = _MARKS[name]
        return Text(text, style=style)

    rows = [(f.about, verdict(f.verdict), f.what, f.todo) for f in found.findings]
    parts: list[Any] = [table(("", "", found.model, "what to do"), rows)]
    if found.readers:
        readers = [(r.reader, verdict("ok" if r.loads else "note"), r.how) for r in found.readers]
        parts += [Text(), table(("patch read by", "", "how"), readers)]
    return Group(*parts)
