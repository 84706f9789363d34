"""Edit facts in a conversation: each is asked, edited and shown, and can be taken back."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from hubedit.cli.chat import Chat, ChatOption, SystemOption, with_chat
from hubedit.cli.output import Output
from hubedit.errors import HubEditError

if TYPE_CHECKING:
    from hubedit.session import Session

_HELP = (
    "Type the beginning of a sentence that the model shall end otherwise: The capital of Japan is",
    "Square brackets mark what it is about, where that is no name: The [sun] rises in the",
    "/ask PROMPT asks without editing, /undo takes the last edit back, /save writes the patch and ends, "
    "/quit ends without.",
)


def edit(
    model: Annotated[str, Argument(metavar="MODEL", help="A folder or repo[@revision].")],
    out: Annotated[Path, Option("--out", "-o", help="Where /save writes the patch.")] = Path("my-patch"),
    force: Annotated[bool, Option("--force", help="Replace an older patch at --out.")] = False,
    device: Annotated[str, Option("--device", help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    dtype: Annotated[str, Option("--dtype", help="auto, float32, float16 or bfloat16.")] = "auto",
    trust_remote_code: Annotated[
        bool, Option("--trust-remote-code", help="Run Python code from the model's repository.")
    ] = False,
    chat: ChatOption = Chat.auto,
    system: SystemOption = "",
    cache: Annotated[
        Path | None, Option("--cache", help="The cache folder (default: $HUBEDIT_CACHE or ~/.cache/hubedit).")
    ] = None,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Only the questions, and the path.")] = False,
) -> None:
    """Edit facts in a conversation: asks, edits, shows before and after, undoes, saves a patch."""
    from hubedit.cache import Cache
    from hubedit.config import EditConfig
    from hubedit.model.load import load
    from hubedit.pipeline import check_free
    from hubedit.session import Session

    sink = Output(quiet=quiet)
    check_free(out, force)
    with TemporaryDirectory(prefix="hubedit-") as folder, sink.progress() as progress:
        progress.start("loading the model")
        em = load(model, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
        progress.finish(f"{em.num_layers} layers on {em.device}")
        em = with_chat(sink, em, chat, system)
        for line in _HELP:
            sink.note(line)
        session = Session(
            em, EditConfig(), folder=Path(folder), name=out.name, cache=Cache(cache), progress=progress
        )
        try:
            save = _talk(sink, session)
        except KeyboardInterrupt:
            if session.facts:
                sink.warn("the edits were not saved: end with /save, or /quit to drop them")
            raise
        if save:
            session.save(out, overwrite=force)
            sink.data(None, human=f"{out}", brief=str(out))
        elif session.facts:
            raise HubEditError("the edits were not saved", "end with /save, or /quit to drop them")


def _talk(sink: Output, session: Session) -> bool:
    """Reads prompts until the end; whether to save the edits. After an error the session goes on."""
    while (line := sink.ask("prompt>")) is not None:
        word, _, rest = line.partition(" ")
        try:
            if word == "/save" and rest:
                sink.warn("/save takes no name", "--out of hubedit edit says where the patch goes")
            elif word == "/save":
                if session.facts:
                    return True
                sink.warn("there is no edit to save")
            elif word == "/quit":
                while session.undo() is not None:
                    pass
                return False
            elif word == "/undo":
                fact = session.undo()
                sink.note(f"taken back: {fact.prompt} {fact.target}" if fact else "there is no edit left")
            elif word == "/ask" and rest:
                sink.show(_said(session, rest))
            elif word.startswith("/"):
                sink.warn(f"{word} is no command here", *_HELP)
            elif line:
                _edit(sink, session, line)
        except HubEditError as error:
            sink.warn(error.message, *error.problems, *([error.hint] if error.hint else []))
    return False


def _edit(sink: Output, session: Session, prompt: str) -> None:
    """One fact: what the model says now, what it shall say, and what it says then. Raises HubEditError."""
    from hubedit.cli.applied import facts_table
    from hubedit.facts import typed_facts
    from hubedit.facts.line import WHERE

    sink.show(_said(session, prompt))
    target = sink.ask("new answer (empty: none)>")
    if not target:
        return
    loaded = typed_facts([f"{prompt} -> {target}"])
    for notice in loaded.notices:
        sink.note(f"notice: {notice.removeprefix(f'{WHERE}:1: ')}")
    made = session.edit(loaded.facts[0])
    sink.show(facts_table(made.report.outcomes))
    before, after = (made.patch.record["perplexity"][name] for name in ("before", "after"))
    sink.note(f"ordinary text: perplexity {before:.4g} before, {after:.4g} after")


def _said(session: Session, prompt: str) -> str:
    from hubedit.facts.answers import clip
    from hubedit.facts.line import unmarked

    plain = unmarked(prompt)
    return f"  {plain} ... {clip(session.ask([plain])[0])}"
