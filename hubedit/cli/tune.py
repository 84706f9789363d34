"""Find the settings for a model by trial edits of facts that it knows, and write them as a preset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from hubedit.cli.chat import Chat, ChatOption, SystemOption, with_chat
from hubedit.cli.facts import Conflict, Format
from hubedit.cli.output import Output, table
from hubedit.cli.place import check_writable

if TYPE_CHECKING:
    from rich.table import Table

    from hubedit.tune import Tuned


def tune(
    model: Annotated[str, Argument(metavar="MODEL", help="A folder or repo[@revision].")],
    facts: Annotated[
        Path | None,
        Option("--facts", help="Facts with their ground_truth (default: a bank of well-known ones)."),
    ] = None,
    budget: Annotated[
        str, Option("--budget", help="Time for this run, such as 90s, 30m or 2h; about.")
    ] = "30m",
    edits: Annotated[
        int, Option("--edits", min=2, help="Facts edited at once in a trial: as many as you mean to edit.")
    ] = 24,
    out: Annotated[Path, Option("--out", "-o", help="The preset; its picture goes beside it.")] = Path(
        "preset.toml"
    ),
    storage: Annotated[
        Path | None,
        Option("--storage", metavar="FILE", help="The journal of trials (default: OUT with .journal)."),
    ] = None,
    seed: Annotated[int, Option("--seed", min=0, max=2**32 - 1, help="Of everything random.")] = 0,
    corpus: Annotated[
        str, Option("--corpus", metavar="FILE|DATASET|self", help="Text for the statistics, as in apply.")
    ] = "self",
    tokens: Annotated[int, Option("--tokens", min=0, help="Its size; 0 is 12 x the widest site.")] = 0,
    chat: ChatOption = Chat.auto,
    system: SystemOption = "",
    device: Annotated[str, Option("--device", help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    dtype: Annotated[str, Option("--dtype", help="auto, float32, float16 or bfloat16.")] = "auto",
    max_memory: Annotated[
        str,
        Option(
            "--max-memory",
            metavar="SIZE",
            help="Limit of each GPU, such as 24GiB; or by device: 0=20GiB,1=20GiB,cpu=60GiB.",
        ),
    ] = "",
    trust_remote_code: Annotated[
        bool, Option("--trust-remote-code", help="Run Python code from the model's repository.")
    ] = False,
    format: Annotated[
        Format, Option("--format", help="The facts' format; auto looks at its fields.")
    ] = Format.auto,
    on_conflict: Annotated[
        Conflict, Option("--on-conflict", help="Two targets for one prompt: stop, keep first or last.")
    ] = Conflict.stop,
    cache: Annotated[
        Path | None, Option("--cache", help="The cache folder (default: $HUBEDIT_CACHE or ~/.cache/hubedit).")
    ] = None,
    json: Annotated[bool, Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Only warnings, and the path.")] = False,
) -> None:
    """Find the settings for a model by trial edits of facts that it knows, and write them as a preset.

    Trials are kept in a journal: the same command goes on from them, after Ctrl-C or for more time.
    """
    sink = Output(json=json, quiet=quiet)

    from hubedit.cache import Cache
    from hubedit.config import EditConfig, StatsConfig, TraceConfig
    from hubedit.documents import source
    from hubedit.facts import load_facts
    from hubedit.model.limits import parse_memory
    from hubedit.model.load import load
    from hubedit.parallel import hold
    from hubedit.tune import bank, candidates, check_out, parse_budget, prepare_cases, write
    from hubedit.tune import tune as run
    from hubedit.tune.study import require_optuna

    # all that can be refused is refused before the model is loaded
    seconds = parse_budget(budget)
    require_optuna()
    check_out(out)
    check_writable(out.parent, out)
    if max_memory:
        parse_memory(max_memory)
    if corpus != "self":
        source(corpus)
    given = bank()
    if facts is not None:
        loaded = load_facts(facts, format=format.value, on_conflict=on_conflict.value)
        for notice in loaded.notices:
            sink.note(f"notice: {notice}")
        given = candidates(loaded.facts)
    with sink.progress() as progress:
        progress.start("loading the model")
        em = hold(
            load,
            model,
            device=device,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            max_memory=max_memory,
        )
        progress.finish(f"{em.num_layers} layers on {em.device}")
        em = with_chat(sink, em, chat, system)
        tuned = run(
            em,
            prepare_cases(em, given, edits, seed, progress),
            budget=seconds,
            storage=storage if storage is not None else out.with_suffix(".journal"),
            base=EditConfig(seed=seed, trace=TraceConfig(seed=seed), stats=StatsConfig(corpus, tokens, seed)),
            cache=Cache(cache),
            progress=progress,
        )
    preset, picture = write(em, tuned, out)
    sink.show(_front(tuned))
    value = {"preset": preset, "picture": picture, "better": tuned.better, **_json(tuned)}
    sink.data(value, human=lambda: _check(tuned), brief=str(preset))
    if all(tried.point is None for tried in tuned.chosen.values()):
        sink.warn("no trial did better than the default, so the preset holds the default: give more --budget")
    elif tuned.chosen["balanced"].point is None:
        sink.note("no trial was better on balance: without --prefer the preset is the default")
    elif not tuned.better:
        sink.warn(
            "on facts that no trial saw, the default did better than the preset: give more --budget, "
            "or edit without it"
        )
    sink.note(f"written to {preset}, the front as a picture to {picture}")
    sink.note(f"use it: hubedit apply FACTS --model {model} --preset {preset}")


def _front(tuned: Tuned) -> Table:
    """The front, and where the preferences and the default lie."""
    from hubedit.report.markup import plural

    settings = ("layers", "alpha", "clamp", "lambda", "kl")
    columns = ("success", "locality", *settings, "")
    rows: list[tuple[object, ...]] = []
    usual = ["the default"]
    for tried in tuned.front:
        names = [name for name, best in tuned.chosen.items() if best == tried]
        if tried.point is None:
            usual += names
            continue
        own = tried.settings()
        targets = own["targets"]
        rows.append(
            (
                _percent(tried.score.success),
                _percent(tried.score.locality),
                own["layers"],
                own["alpha"],
                f"{targets['clamp']:g}",
                f"{own['lam']:g}",
                f"{targets['kl']:g}",
                ", ".join(names),
            )
        )
    score = tuned.default
    rows.append((_percent(score.success), _percent(score.locality), *[""] * len(settings), ", ".join(usual)))
    trials = plural(len(tuned.trials), "trial")
    title = f"\nThe front of {trials} of {len(tuned.cases.trial)} edits, % (locality times what text kept)"
    return table(columns, rows, title=title, right=columns[:-1])


def _check(tuned: Tuned) -> Table:
    """The chosen points and the default on facts that no trial saw."""
    from hubedit.evaluate.edits import METRICS

    shown = [m for m in METRICS if any(m in score.metrics for score in tuned.check.values())]
    rows = [
        (
            name,
            *(_percent(score.metrics[m]) if m in score.metrics else "-" for m in shown),
            _percent(score.kept),
            _percent(score.mean()),
        )
        for name, score in tuned.check.items()
    ]
    title = f"\nOn {len(tuned.cases.check)} facts that no trial saw, %"
    return table(("settings", *shown, "text", "mean"), rows, title=title, right=(*shown, "text", "mean"))


def _json(tuned: Tuned) -> dict[str, Any]:
    front = [{**t.settings(), "trial": t.name, "score": t.score} for t in tuned.front]
    return {
        "known": tuned.cases.known,
        "asked": tuned.cases.asked,
        "trials": len(tuned.trials),
        "default": tuned.default,
        "front": front,
        "chosen": {name: t.name for name, t in tuned.chosen.items()},
        "check": tuned.check,
    }


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
