"""See it work: facts edited in a model, asked before and after, and the patch's way in and out of it."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from hubedit.cli.chat import Chat, ChatOption, SystemOption, with_chat
from hubedit.cli.output import Output, mark, table

if TYPE_CHECKING:
    from hubedit.pipeline import Applied
    from hubedit.tour import Bank, Circle, Said

_EDITS, _EVERYDAY, _SHOWN = 50, 10, 10
# characters of an answer that a table shows
_BARE, _CHAT = 28, 46
# in the words of a newcomer; the names of the fields are in docs/facts.md
_METRICS = {
    "success": "the edited prompts give the new answer",
    "generalisation": "rephrasings give it too",
    "portability": "two-hop questions follow it",
    "locality": "other facts unchanged",
    "neighbourhood": "facts about other subjects unchanged",
}


def demo(
    model: Annotated[
        str,
        Option(
            "--model",
            "-m",
            help="A folder or repo[@revision], for facts that everybody knows (default: "
            "the bundled model, and facts of its own).",
        ),
    ] = "",
    out: Annotated[Path, Option("--out", "-o", help="Where the patch goes.")] = Path("hubedit-demo"),
    force: Annotated[bool, Option("--force", help="Replace the patch of an earlier demo.")] = False,
    chat: ChatOption = Chat.auto,
    system: SystemOption = "",
    device: Annotated[str, Option("--device", help="auto, cpu, cuda, cuda:N or mps.")] = "cpu",
    cache: Annotated[
        Path | None, Option("--cache", help="The cache folder (default: $HUBEDIT_CACHE or ~/.cache/hubedit).")
    ] = None,
    json: Annotated[bool, Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Only warnings, and the path.")] = False,
) -> None:
    """See it work: edit facts of a model, ask it before and after, and merge and revert the patch."""
    from hubedit.cache import Cache
    from hubedit.config import EditConfig
    from hubedit.demo import everyday_path, facts_path, model_path
    from hubedit.model.load import load
    from hubedit.pipeline import apply_facts, check_free
    from hubedit.tour import ask, believed, bundled, circle, everyday

    sink = Output(json=json, quiet=quiet)
    check_free(out, force)
    ref = model or str(model_path())
    with sink.progress() as progress:
        progress.start("loading the model")
        em = load(ref, device=device)
        millions = sum(p.numel() for p in em.model.parameters()) / 1e6
        progress.finish(f"{em.family.name}, {millions:,.1f} million parameters, on {em.device}")
        em = with_chat(sink, em, chat, system)
        if model:
            bank = everyday()
            before = ask(em, bank)
            bank = believed(bank, before, _EVERYDAY, ref)
        else:
            bank = replace(bundled(), facts=bundled().facts[:_EDITS])
            before = ask(em, replace(bank, facts=bank.facts[:_SHOWN]))
        sink.show(f"\n1. What the model says, and what {len(bank.facts)} edits shall change\n")
        sink.show(_asked(bank, before))
        sink.show("\n2. Computing the patch (the model itself stays as it is)\n")
        source = everyday_path() if model else facts_path()
        applied = apply_facts(
            em,
            bank.facts,
            EditConfig(),
            out=out,
            cache=Cache(cache),
            progress=progress,
            source=str(source),
            overwrite=force,
            command=("hubedit", "demo", *(("--model", em.ref) if model else ()), "--out", str(out)),
        )
        edited = em.with_patch(applied.patch.by_site(em))
        after = ask(edited, replace(bank, facts=bank.facts[:_SHOWN]))
        sink.show("\n3. What the model says with the patch\n")
        sink.show(_compared(bank, before, after))
        if bank.neighbours:
            unknown = any("chat_ok" not in row for row in _kept(bank, before, after))
            note = ' ("-": the answer in chat was wrong before)' if after.chat and unknown else ""
            sink.show(f"\n   What was not edited{note}\n")
            sink.show(_neighbours(bank, before, after))
        template = "in the chat template, each prompt as a sentence to complete"
        form = template if em.chat is not None else "as the prompts are written"
        sink.show(
            f"\n   The report's figures, asked {form}; unchanged: the answer's first word is the same\n"
        )
        sink.show(_metrics(applied))
        prompt = next((o.fact.prompt for o in applied.report.outcomes if o.success), bank.facts[0].prompt)
        sink.show("\n4. The patch is a plain LoRA adapter, and goes into the weights and out again\n")
        with TemporaryDirectory(dir=out.absolute().parent, prefix=".hubedit-demo-") as work:
            whole = circle(em, out, prompt, Path(work))
        sink.show(_circled(whole, prompt))
    report = applied.report
    value = {
        "path": applied.path,
        "model": ref,
        "facts": len(bank.facts),
        "metrics": report.metrics,
        "counts": report.counts,
        "harmonic_mean": report.harmonic_mean,
        "asked": _rows(bank, before, after),
        "neighbours": _kept(bank, before, after),
        "peft": {"prompt": prompt, "answer": whole.peft},
        "merged": {"answer": whole.merged, "tensors": whole.weights, "reverted": whole.same},
        "seconds": applied.patch.record["seconds"],
    }
    sink.data(value, human=lambda: _next(applied, ref, prompt), brief=str(applied.path))


def _rows(bank: Bank, before: Said, after: Said) -> list[dict[str, Any]]:
    """What was asked of the edited facts, with the verdicts: bare, the answer stands first; in chat the first
    sentence names the new answer and not the old one."""
    from hubedit.facts.answers import clip, gives
    from hubedit.tour import names

    found: list[dict[str, Any]] = []
    for fact in bank.facts[:_SHOWN]:
        prompt = fact.prompt
        row: dict[str, Any] = {"prompt": prompt, "target": fact.target}
        row |= {"before": clip(before.bare[prompt]), "after": clip(after.bare[prompt])}
        row["ok"] = gives(after.bare[prompt], [fact.target])
        if prompt in after.chat:
            row["question"] = fact.question or prompt
            row |= {"chat_before": clip(before.chat[prompt]), "chat_after": clip(after.chat[prompt])}
            row["chat_ok"] = names(after.chat[prompt], [fact.target], fact.ground_truth)
        found.append(row)
    return found


def _kept(bank: Bank, before: Said, after: Said) -> list[dict[str, Any]]:
    """What was asked beside the edited facts; in chat only what the model had right before."""
    from hubedit.facts.answers import clip, gives
    from hubedit.tour import names

    found: list[dict[str, Any]] = []
    for probe in bank.neighbours:
        prompt = probe.prompt
        row: dict[str, Any] = {"prompt": prompt, "before": clip(before.bare[prompt])}
        row |= {"after": clip(after.bare[prompt]), "ok": gives(after.bare[prompt], probe.answers)}
        if names(before.chat.get(prompt, ""), probe.answers):
            row |= {"chat_after": clip(after.chat[prompt])}
            row["chat_ok"] = names(after.chat[prompt], probe.answers)
        found.append(row)
    return found


def _asked(bank: Bank, before: Said) -> Any:
    from hubedit.facts.answers import clip

    rows = []
    for fact in bank.facts[:_SHOWN]:
        chat = [_cut(clip(before.chat[fact.prompt]), _CHAT)] if before.chat else []
        rows.append((fact.prompt, _cut(clip(before.bare[fact.prompt])), *chat, fact.target))
    chat = ["asked in chat"] if before.chat else []
    return table(("prompt", "the model says", *chat, "it shall say"), rows)


def _compared(bank: Bank, before: Said, after: Said) -> Any:
    rows = _rows(bank, before, after)
    columns = ["prompt", "before", "after", "ok"]
    cells = [[r["prompt"], _cut(r["before"]), _cut(r["after"]), mark(r["ok"])] for r in rows]
    if after.chat:
        columns += ["asked in chat, after", "ok "]
        for line, row in zip(cells, rows, strict=True):
            line += [_cut(row.get("chat_after", ""), _CHAT), mark(row.get("chat_ok"))]
    return table(columns, cells)


def _neighbours(bank: Bank, before: Said, after: Said) -> Any:
    rows = _kept(bank, before, after)
    columns = ["prompt", "before", "after", "kept"]
    cells = [[r["prompt"], _cut(r["before"]), _cut(r["after"]), mark(r["ok"])] for r in rows]
    if after.chat:
        columns += ["kept in chat"]
        for line, row in zip(cells, rows, strict=True):
            line += [mark(row.get("chat_ok"))]
    return table(columns, cells)


def _cut(text: str, most: int = _BARE) -> str:
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"


def _metrics(applied: Applied) -> Any:
    from hubedit.cli.applied import table_of

    report = applied.report
    return table_of(
        (text, f"{100 * report.metrics[name]:5.1f} % of {report.counts[name]} prompts")
        for name, text in _METRICS.items()
        if name in report.metrics
    )


def _circled(whole: Circle, prompt: str) -> Any:
    from hubedit.cli.applied import table_of

    same = "every file is the base's again, byte for byte" if whole.same else "NOT the base's files again"
    return table_of(
        (
            ("loaded by PEFT", f"{prompt} ... {whole.peft}"),
            ("merged", f"{prompt} ... {whole.merged} ({whole.weights} weights changed)"),
            ("reverted", same),
        )
    )


def _next(applied: Applied, model: str, prompt: str) -> str:
    from hubedit.cli.command_line import program
    from hubedit.facts.line import written

    place, where, name = shlex.quote(str(applied.path)), shlex.quote(model), program()
    example = next(fact for fact in applied.patch.facts if fact.prompt == prompt)
    return "\n".join(
        (
            "\n5. Where it is, and what to do next\n",
            f"   {applied.path}  (report.html for a browser; its card is README.md)",
            "",
            "   Ask without and with the patch:",
            f"     {name} ask {where} --patch {place} {shlex.quote(prompt)}",
            "   Edit facts of your own, in a conversation or at once (put yours in place of this one):",
            f"     {name} edit {where}",
            f"     {name} apply --fact {shlex.quote(written(example))} --model {where} --out my-patch",
        )
    )
