"""Measure a model, and what a patch does to it."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Context, Option

from hubedit.cli.chat import Chat, ChatOption, SystemOption, with_chat
from hubedit.cli.command_line import program, words
from hubedit.cli.evaluated import summary
from hubedit.cli.evaluating import (
    check_merged,
    evaluated_of,
    facts_of,
    parts_of,
    rows_of,
    told,
    wanted_forms,
    wanted_tasks,
)
from hubedit.cli.output import Output, plain
from hubedit.cli.report_file import check_sample, report_file, write_report
from hubedit.errors import ConfigError

if TYPE_CHECKING:
    from hubedit.model.editable import EditableModel


def eval(
    context: Context,
    model: Annotated[str, Argument(metavar="MODEL", help="The unedited model: a folder or repo[@revision].")],
    patch: Annotated[
        str | None, Option("--patch", "-p", help="A patch made for this model: a folder or repo[@revision].")
    ] = None,
    merged: Annotated[
        Path | None, Option("--merged", help="The checkpoint that the patch was merged into.")
    ] = None,
    facts: Annotated[
        Path | None, Option("--facts", "-f", help="Facts to ask (default: the patch's own).")
    ] = None,
    dataset: Annotated[
        str,
        Option(
            "--dataset",
            metavar="NAME|PATH",
            help="A benchmark's records: a file, or by name from the Hub (docs/facts.md).",
        ),
    ] = "",
    tasks: Annotated[
        str,
        Option(
            "--tasks",
            help="Tasks of lm-eval, such as gsm8k,hellaswag, or the YAML file of one; name:N for N examples.",
        ),
    ] = "",
    task_path: Annotated[
        Path | None, Option("--task-path", help="A folder with task definitions (YAML) of your own.")
    ] = None,
    abilities: Annotated[
        str,
        Option(
            "--abilities",
            metavar="hub|FILE",
            help="General abilities before and after: MMLU, GSM8K, ARC, IFEval and TruthfulQA, 200 questions "
            "each; or GSM8K from a file.",
        ),
    ] = "",
    forms: Annotated[
        str,
        Option(
            "--forms",
            metavar="LIST|none",
            help="Ways in which every prompt is asked, as far as the model has them.",
        ),
    ] = "bare,question,instruction,chat",
    judge: Annotated[
        str,
        Option(
            "--judge",
            metavar="REF",
            help="Another model, a folder or repo[@revision], that says whether answers mean the targets.",
        ),
    ] = "",
    automatic: Annotated[
        bool, Option("--automatic/--no-automatic", help="Ask probes made from every fact.")
    ] = True,
    limit: Annotated[int, Option("--limit", min=0, help="Facts, and questions of a task; 0: all.")] = 0,
    text: Annotated[
        list[str] | None,
        Option(
            "--text",
            metavar="FILE|DATASET|self|none",
            help="Unrelated text for perplexity and divergence (default: self, which the model writes); "
            "given twice, the second is a file of real text beside it.",
        ),
    ] = None,
    bystanders: Annotated[
        Path | None,
        Option(
            "--bystanders",
            help="Facts that nobody edited; those that the model knows must keep their answers "
            "(default: the records of --facts or --dataset that are not edited).",
        ),
    ] = None,
    fluency: Annotated[int, Option("--fluency", min=0, help="Texts written to measure fluency.")] = 200,
    out: Annotated[
        Path | None, Option("--out", "-o", metavar="DIR|FILE", help="Where report.json is written.")
    ] = None,
    chat: ChatOption = Chat.auto,
    system: SystemOption = "",
    device: Annotated[str, Option("--device", help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    dtype: Annotated[str, Option("--dtype", help="auto, float32, float16 or bfloat16.")] = "auto",
    seed: Annotated[
        int,
        Option("--seed", min=0, max=2**32 - 1, help="Of the intervals, the written texts and the examples."),
    ] = 0,
    cache: Annotated[
        Path | None, Option("--cache", help="The cache folder (default: $HUBEDIT_CACHE or ~/.cache/hubedit).")
    ] = None,
    trust_remote_code: Annotated[
        bool, Option("--trust-remote-code", help="Run Python code from the model's repository.")
    ] = False,
    json: Annotated[bool, Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Only warnings, and where the report is.")] = False,
) -> None:
    """Measure a model before and after a patch: edits, locality, fluency, unrelated text, tasks."""
    sink = Output(json=json, quiet=quiet)
    if facts is not None and dataset:
        raise ConfigError("--facts and --dataset exclude each other", "give one of them")
    text = text or ["self"]
    if len(text) > 2:
        raise ConfigError(f"--text is given {len(text)} times", "give it once or twice")
    if bystanders is not None and patch is None and merged is None:
        raise ConfigError("--bystanders without --patch or --merged", "nothing is edited; leave it out")
    if task_path is not None and not tasks:
        raise ConfigError("--task-path without --tasks", "name the tasks with --tasks")

    from hubedit.cache import Cache
    from hubedit.documents import documents
    from hubedit.environment import peak_memory, portable
    from hubedit.evaluate import harness, records
    from hubedit.evaluate.bystanders import candidates
    from hubedit.evaluate.judge import as_judge
    from hubedit.evaluate.measure import Settings, fitting
    from hubedit.evaluate.run import evaluate
    from hubedit.evaluate.text import text_rows
    from hubedit.hub import patch_folder
    from hubedit.model.load import load
    from hubedit.model.memory import forget_peak
    from hubedit.patch import Patch

    # everything that can be refused is refused before a model is loaded
    named, task_path = wanted_tasks(tasks, abilities, task_path)
    asked_forms = wanted_forms(forms)
    if judge and not asked_forms:
        raise ConfigError("--judge without --forms", "leave out --forms none")
    target = report_file(out)
    if target is not None and (limit or facts is not None or dataset):
        check_sample(target)
    where = patch_folder(patch) if patch is not None else None
    edit = Patch.load(where) if where is not None else None
    if merged is not None:
        check_merged(merged, edit)
    asked, others, remarks = facts_of(edit, facts, dataset, limit)
    if bystanders is not None:
        others = records.dataset(str(bystanders)).facts
    if not asked and not named and text == ["none"]:
        raise ConfigError(
            "there is nothing to measure", "give --patch, --facts, --dataset, --tasks or --text"
        )
    settings = Settings(fluency, asked_forms, automatic, named, task_path, limit, seed)
    store = Cache(cache)
    with sink.progress() as progress:
        progress.start("loading the model")
        em = load(model, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
        progress.finish(f"{em.num_layers} layers on {em.device}")
        if edit is not None:
            edit.fits(em)
        em = with_chat(sink, em, chat, system, edit.record if edit is not None else None)
        forget_peak(em.device)
        other, judging, start = None, None, perf_counter()
        edited: dict[str, EditableModel] = {}
        if edit is not None:
            edited["adapter"] = em.with_patch(edit.by_site(em))
        if merged is not None:
            progress.start("loading the merged model")
            other = load(str(merged), device=device, dtype=dtype, trust_remote_code=trust_remote_code)
            progress.finish(f"{other.num_layers} layers on {other.device}")
            other = replace(other, chat=em.chat)
            edited["merged"] = other
        if judge:
            progress.start("loading the judge")
            judging = as_judge(load(judge, device=device, dtype=dtype, trust_remote_code=trust_remote_code))
            progress.finish(f"{judging.num_layers} layers on {judging.device}")
        usable, left_out = fitting(em, asked)
        rows, source = rows_of(em, text[0], seed, store, progress)
        report = evaluate(
            em,
            usable,
            edited=edited,
            rows=rows,
            real=text_rows(em, documents(text[1])) if len(text) > 1 else (),
            bystanders=fitting(em, candidates(others, edit.facts if edit else asked))[0],
            parts=parts_of(edit, em),
            settings=settings,
            judge=judging,
            cache=store,
            progress=progress,
        )
    report["text"] = source if source.get("rows") else {}
    if len(text) > 1:
        report["text"] |= {"real": portable(text[1])}
    # a quiet reader of report.json must learn of every record that is not in the numbers
    report["notes"] = [*remarks, *told(edit), *left_out, *report.get("notes", [])]
    report["evaluated"] = evaluated_of(em, edit, where, other, judging, words(context))
    report["evaluated"] |= {"seconds": perf_counter() - start, "peak_memory": peak_memory(em.device)}
    if named:
        report["evaluated"]["versions"] |= harness.release()
    report = {name: value for name, value in plain(report).items() if value not in ({}, [], None)}
    if target is not None:
        write_report(target, report)
    for note in report.get("notes", ()):
        sink.note(note)
    sink.data(report, human=lambda: summary(report), brief=str(target) if target is not None else None)
    if target is not None:
        sink.note(f"written to {target}")
        sink.note(f"as a page: {program()} report {shlex.quote(str(target))} --html PAGE.html")
