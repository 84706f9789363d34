"""Ask a model, without and with a patch, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from hubedit.cli.chat import Chat, ChatOption, SystemOption, with_chat
from hubedit.cli.output import Output, table
from hubedit.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from hubedit.evaluate.ask import Answer


def ask(
    model: Annotated[str, Argument(metavar="MODEL", help="A folder or repo[@revision].")],
    prompts: Annotated[
        list[str],
        Argument(
            metavar="PROMPT...",
            help="Each is continued by the model; in a chat template it is a message, as it is written.",
        ),
    ],
    patch: Annotated[
        str | None, Option("--patch", "-p", help="A patch made for this model: a folder or repo[@revision].")
    ] = None,
    chat: ChatOption = Chat.auto,
    system: SystemOption = "",
    max_new_tokens: Annotated[int, Option("--max-new-tokens", min=1, help="Length of the answer.")] = 16,
    device: Annotated[str, Option("--device", help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    dtype: Annotated[str, Option("--dtype", help="auto, float32, float16 or bfloat16.")] = "auto",
    trust_remote_code: Annotated[
        bool, Option("--trust-remote-code", help="Run Python code from the model's repository.")
    ] = False,
    json: Annotated[bool, Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Only the answers (with the patch).")] = False,
) -> None:
    """Ask a model, without and with a patch: its greedy answer and the likeliest next tokens."""
    sink = Output(json=json, quiet=quiet)
    if any(not prompt.strip() for prompt in prompts):
        raise ConfigError("a prompt is empty", "write the text that the model shall continue")

    # a line's end closes a chat template's turn
    if any(prompt[-1].isspace() and prompt[-1] != "\n" for prompt in prompts):
        sink.note("notice: a prompt ends in a space, which most models read otherwise: leave it out")

    from hubedit.evaluate.ask import ask as run
    from hubedit.hub.pull import patch_folder
    from hubedit.model.load import load
    from hubedit.patch import Patch

    # a patch that cannot be read is refused before a model is loaded
    edit = Patch.load(patch_folder(patch)) if patch is not None else None
    with sink.progress() as progress:
        progress.start("loading the model")
        em = load(model, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
        progress.finish(f"{em.num_layers} layers on {em.device}")
    if edit is not None:  # before its chat template is looked for
        edit.fits(em)
    em = with_chat(sink, em, chat, system, edit.record if edit is not None else None)
    sides = {}
    sides["without"] = run(em, prompts, max_new_tokens=max_new_tokens)
    if edit is not None:
        sides["with"] = run(em.with_patch(edit.by_site(em)), prompts, max_new_tokens=max_new_tokens)
    last = [*sides.values()][-1]
    value = {
        "model": em.ref,
        "patch": patch,
        "prompts": [
            {"prompt": prompt, **{name: _plain(side[n]) for name, side in sides.items()}}
            for n, prompt in enumerate(prompts)
        ],
    }
    sink.data(
        value,
        human=lambda: comparison(sides),
        brief="\n".join(" ".join(answer.text.split()) for answer in last),
    )


def comparison(sides: Mapping[str, Sequence[Answer]]) -> Table:
    """One block a prompt: the answers, then the likeliest next tokens, one pair of columns a side."""
    names = {"without": "without the patch", "with": "with the patch"} if len(sides) > 1 else {"without": ""}
    columns = ["prompt"]
    for side in sides:
        columns += [names[side] or "answer", " " * len(columns)]
    rows: list[tuple[object, ...]] = []
    for answers in zip(*sides.values(), strict=True):
        if rows:
            rows.append(())
        rows.append((answers[0].prompt, *(cell for a in answers for cell in (_line(a.text), ""))))
        for tokens in zip_longest(*(a.top for a in answers)):
            cells = (cell for t in tokens for cell in (_line(t.token, "  "), f"{100 * t.probability:.1f} %"))
            rows.append(("", *cells))
    return table(columns, rows, right=[c for c in columns if not c.strip()])


def _line(text: str, indent: str = "") -> str:
    """Text in one line; what is only white space is shown as its escape."""
    return indent + (" ".join(text.split()) or repr(text)[1:-1])


def _plain(answer: Answer) -> dict[str, Any]:
    return {"text": answer.text, "top": answer.top}
