"""Measure a model, and what a patch does to it."""

from __future__ import annotations

from collections.abc import Sequence
from json import loads
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Context, Option

from hubedit.cli.command_line import words
from hubedit.cli.evaluated import summary
from hubedit.cli.output import Output, plain
from hubedit.cli.report_file import check_sample, report_file, write_report
from hubedit.errors import ConfigError

if TYPE_CHECKING:
    from hubedit.cache import Cache
    from hubedit.evaluate.damage import Parts
    from hubedit.facts import Fact
    from hubedit.model.editable import EditableModel
    from hubedit.patch import Patch
    from hubedit.progress import Progress


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
            help="A benchmark's records: a file, or zsre, wiki_counterfact or counterfact from the Hub.",
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
    from hubedit.edit.record import peak_memory, portable
    from hubedit.edit.statistics.documents import documents
    from hubedit.evaluate import harness, records
    from hubedit.evaluate.bystanders import candidates
    from hubedit.evaluate.measure import Settings, fitting
    from hubedit.evaluate.run import evaluate
    from hubedit.evaluate.text import text_rows
    from hubedit.hub import patch_folder
    from hubedit.model.load import load
    from hubedit.model.memory import forget_peak
    from hubedit.patch import Patch

    # everything that can be refused is refused before a model is loaded
    named: tuple[harness.Task, ...] = ()
    if tasks:
        named, task_path = harness.locate(tasks.split(","), task_path)
        harness.require(named, task_path)
    target = report_file(out)
    if target is not None and (limit or facts is not None or dataset):
        check_sample(target)
    where = patch_folder(patch) if patch is not None else None
    edit = Patch.load(where) if where is not None else None
    if merged is not None:
        _check_merged(merged, edit)
    asked, others, remarks = _facts(edit, facts, dataset, limit)
    if bystanders is not None:
        others = records.dataset(str(bystanders)).facts
    if not asked and not named and text == ["none"]:
        raise ConfigError(
            "there is nothing to measure", "give --patch, --facts, --dataset, --tasks or --text"
        )
    settings = Settings(fluency, named, task_path, limit, seed)
    store = Cache(cache)
    with sink.progress() as progress:
        progress.start("loading the model")
        em = load(model, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
        progress.finish(f"{em.num_layers} layers on {em.device}")
        forget_peak(em.device)
        other, start = None, perf_counter()
        edited: dict[str, EditableModel] = {}
        if edit is not None:
            edit.fits(em)
            edited["adapter"] = em.with_patch(edit.by_site(em))
        if merged is not None:
            progress.start("loading the merged model")
            other = load(str(merged), device=device, dtype=dtype, trust_remote_code=trust_remote_code)
            progress.finish(f"{other.num_layers} layers on {other.device}")
            edited["merged"] = other
        usable, left_out = fitting(em, asked)
        rows, told = _rows(em, text[0], seed, store, progress)
        report = evaluate(
            em,
            usable,
            edited=edited,
            rows=rows,
            real=text_rows(em, documents(text[1])) if len(text) > 1 else (),
            bystanders=fitting(em, candidates(others, edit.facts if edit else asked))[0],
            parts=_parts(edit, em),
            settings=settings,
            cache=store,
            progress=progress,
        )
    report["text"] = told if told.get("rows") else {}
    if len(text) > 1:
        report["text"] |= {"real": portable(text[1])}
    # a quiet reader of report.json must learn of every record that is not in the numbers
    report["notes"] = [*remarks, *left_out, *report.get("notes", [])]
    report["evaluated"] = _evaluated(em, edit, where, other, words(context))
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


def _facts(
    edit: Patch | None, facts: Path | None, dataset: str, limit: int
) -> tuple[list[Fact], Sequence[Fact], list[str]]:
    """What is asked, the records that may be bystanders, and what has to be said of it."""
    from hubedit.evaluate import records
    from hubedit.facts import load_facts

    path = dataset or (str(facts) if facts is not None else "")
    # what is not asked may be a bystander, and needs no check as for an edit
    others = records.dataset(path).facts if path and edit is not None else ()
    if dataset:
        found = records.dataset(dataset, limit=limit)
        count = f"{len(found.skipped)} of {found.total} records cannot be used, the first: "
        return list(found.facts), others, [count + found.skipped[0]] if found.skipped else []
    if facts is not None:
        return list(load_facts(facts, limit=limit).facts), others, []
    own = list(edit.facts) if edit is not None else []
    if edit is not None and not own:
        raise ConfigError("the patch was saved without its facts", "give them with --facts")
    return own[:limit] if limit else own, (), []


def _parts(edit: Patch | None, em: EditableModel) -> Parts | None:
    """Whose the patch's rows are, where that can be told."""
    from hubedit.evaluate.damage import Parts
    from hubedit.patch.owners import owners

    rows = owners(edit) if edit is not None else None
    if edit is None or rows is None:
        return None
    return Parts(edit.facts, {site: tuple(rows[module]) for module, site in edit.sites(em).items()})


def _rows(
    em: EditableModel, text: str, seed: int, cache: Cache, progress: Progress
) -> tuple[list[list[int]], dict[str, Any]]:
    """The unrelated text as tokens, the same as in the report of `hubedit apply`; and what it is."""
    if text == "none":
        return [], {}

    from hubedit.config import StatsConfig
    from hubedit.edit.record import portable
    from hubedit.edit.statistics.corpus import unseen_rows

    rows, used = unseen_rows(em, StatsConfig(corpus=text, seed=seed), cache, progress)
    told: dict[str, Any] = {"corpus": portable(text), "rows": sum(1 for row in rows if len(row) > 1)}
    # of a corpus, an edit may have used more than it does by default
    return rows, told | ({"used": used} if text == "self" else {})


def _evaluated(
    em: EditableModel,
    edit: Patch | None,
    patch: Path | None,
    merged: EditableModel | None,
    command: Sequence[str],
) -> dict[str, Any]:
    """Which model, patch and versions the numbers belong to; no path of this machine."""
    from datetime import UTC, datetime

    from hubedit.edit.record import base_name, device_name, portable, versions
    from hubedit.patch.identity import patch_id

    found: dict[str, Any] = {"model": base_name(em), "commit": em.commit}
    if edit is not None and patch is not None:
        found |= {"patch": patch.resolve().name, "patch_id": patch_id(edit)}
    if merged is not None:
        config = loads((merged.path / "config.json").read_text(encoding="utf-8"))
        stored = config.get("dtype") or config.get("torch_dtype")
        found |= {"merged": base_name(merged), "merged_dtype": stored}
    return {
        **found,
        "dtype": str(em.dtype).removeprefix("torch."),
        "device": device_name(em.device),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "versions": versions(),
        "command": [portable(word) for word in command],
    }


def _check_merged(merged: Path, edit: Patch | None) -> None:
    """The merged model is there and beside a patch holds only that. Raises ConfigError, ModelError."""
    from hubedit.checkpoint.record import Record
    from hubedit.model.fetch import find
    from hubedit.patch.identity import patch_id

    if len(merged.parts) == 1 and not merged.exists():
        raise ConfigError(f"no such folder: {merged}", "a Hub repository is written owner/name")
    folder = find(str(merged)).folder
    if edit is None:
        return
    record, own = Record.read(folder), patch_id(edit)[:12]
    ids = [each.id for each in record.patches] if record else []
    if ids == [own]:
        return
    what = f"{merged} holds {', '.join(ids)}, not this patch alone ({own})"
    raise ConfigError(
        what if ids else f"hubedit merged no patch into {merged}",
        "give a folder of `hubedit merge PATCH --out DIR`, or leave out --patch",
    )
