"""Edit facts into a model: a verified patch, written as a PEFT adapter."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Context, Option

from hubedit.cli.facts import Conflict, Format
from hubedit.cli.output import Output
from hubedit.errors import ConfigError

if TYPE_CHECKING:
    from hubedit.config import EditConfig
    from hubedit.facts import LoadedFacts


class Order(StrEnum):
    """How a layer's two sites share the change."""

    attention_first = "attention-first"
    joint = "joint"


def apply(
    context: Context,
    facts: Annotated[Path, Argument(metavar="FACTS", help="A facts file: JSONL, JSON or CSV.")],
    model: Annotated[str, Option("--model", "-m", help="A folder or repo[@revision].")],
    out: Annotated[
        Path | None,
        Option("--out", "-o", help="The patch's folder (default: NAME-patch here, for NAME.jsonl)."),
    ] = None,
    on: Annotated[
        str, Option("--on", metavar="PATCH", help="Edit on top of this patch; its facts are protected.")
    ] = "",
    preset: Annotated[
        str | None,
        Option("--preset", help="A paper's settings: qwen2.5-7b, mistral-7b or llama-3-8b."),
    ] = None,
    layers: Annotated[
        str | None, Option("--layers", help="auto (from causal tracing), 4-8 or 4,6,8.  [default: auto]")
    ] = None,
    alpha: Annotated[
        str | None,
        Option("--alpha", help="Attention's share: auto (traced), per-layer, or 0 to 1.  [default: auto]"),
    ] = None,
    order: Annotated[
        Order | None, Option("--order", help="How a layer's sites share.  [default: attention-first]")
    ] = None,
    search: Annotated[
        bool | None,
        Option(
            "--search/--no-search",
            help="Try several drift budgets and keep the best.  [default: search]",
            show_default=False,
        ),
    ] = None,
    drift_mlp: Annotated[
        float | None, Option("--drift-mlp", min=0, help="A fixed budget; implies --no-search.")
    ] = None,
    drift_attention: Annotated[
        float | None, Option("--drift-attention", min=0, help="A fixed budget; implies --no-search.")
    ] = None,
    lam: Annotated[
        float | None, Option("--lam", min=0, help="A fixed lambda instead of budgets; implies --no-search.")
    ] = None,
    rank: Annotated[
        int | None, Option("--rank", min=0, help="Truncate to this rank; 0 is exact.  [default: 0]")
    ] = None,
    repair: Annotated[
        int | None, Option("--repair", min=0, help="Rounds for facts that fail.  [default: 2]")
    ] = None,
    corpus: Annotated[
        str | None,
        Option(
            "--corpus",
            metavar="FILE|DATASET|self",
            help="Text for the statistics; self: the model writes it.  [default: self]",
        ),
    ] = None,
    tokens: Annotated[
        int | None, Option("--tokens", min=0, help="Its size; 0 is 10 x the widest site.  [default: 0]")
    ] = None,
    seed: Annotated[int | None, Option("--seed", help="Of everything random.  [default: 0]")] = None,
    device: Annotated[str, Option("--device", help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    dtype: Annotated[str, Option("--dtype", help="auto, float32, float16 or bfloat16.")] = "auto",
    trust_remote_code: Annotated[
        bool, Option("--trust-remote-code", help="Run Python code from the model's repository.")
    ] = False,
    format: Annotated[
        Format, Option("--format", help="The facts' format; auto looks at its fields.")
    ] = Format.auto,
    on_conflict: Annotated[
        Conflict, Option("--on-conflict", help="Two targets for one prompt: stop, keep first or last.")
    ] = Conflict.stop,
    no_facts: Annotated[
        bool, Option("--no-facts", help="Keep the facts themselves out of the patch.")
    ] = False,
    force: Annotated[bool, Option("--force", help="Replace an older patch at --out.")] = False,
    strict: Annotated[bool, Option("--strict", help="Exit code 3 when facts still fail.")] = False,
    dry_run: Annotated[bool, Option("--dry-run", help="Only show the plan; nothing is written.")] = False,
    cache: Annotated[
        Path | None, Option("--cache", help="The cache folder (default: $HUBEDIT_CACHE or ~/.cache/hubedit).")
    ] = None,
    push: Annotated[
        str, Option("--push", metavar="REPO", help="Push the patch to the Hub, private if new.")
    ] = "",
    stats_repo: Annotated[
        str,
        Option(
            "--stats-repo",
            metavar="REPO",
            envvar="HUBEDIT_STATS_REPO",
            help="Take statistics and traces from this repository where it has them.",
        ),
    ] = "",
    json: Annotated[bool, Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Only warnings, and the path.")] = False,
) -> None:
    """Edit facts into a model: a verified patch, written as a PEFT adapter."""
    sink = Output(json=json, quiet=quiet)
    config = settings(
        preset,
        layers=layers,
        alpha=alpha,
        order=order.value if order else None,
        search=search,
        drift_mlp=drift_mlp,
        drift_attention=drift_attention,
        lam=lam,
        rank=rank,
        repair=repair,
        corpus=corpus,
        tokens=tokens,
        seed=seed,
    )
    target = out if out is not None else Path(f"{facts.stem}-patch")

    from hubedit.facts import load_facts
    from hubedit.hub import patch_folder
    from hubedit.patch import Patch

    loaded = load_facts(facts, format=format.value, on_conflict=on_conflict.value)
    for notice in loaded.notices:
        sink.note(f"notice: {notice}")
    if dry_run:
        if on:
            Patch.load(patch_folder(on))
        _plan(sink, model, loaded, str(facts), config, target, force, device, dtype, trust_remote_code)
        return

    from hubedit.cache import Cache
    from hubedit.cli.applied import show
    from hubedit.cli.push import destination, send, shared
    from hubedit.model.load import load
    from hubedit.pipeline import apply_facts, check_free, check_strict

    check_free(target, force)
    older = Patch.load(patch_folder(on)) if on else None
    # a login that may not write, or a repository that is not there, is told before the long work
    place = destination(push) if push else None
    store = shared(stats_repo, cache) if stats_repo else Cache(cache)
    with sink.progress() as progress:
        progress.start("loading the model")
        em = load(model, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
        progress.finish(f"{em.num_layers} layers on {em.device}")
        applied = apply_facts(
            em,
            loaded.facts,
            config,
            out=target,
            on=older,
            cache=store,
            progress=progress,
            source=str(facts),
            with_facts=not no_facts,
            overwrite=force,
            command=words(context),
        )
    show(sink, applied)
    if place is not None:
        send(sink, target, place, with_facts=not no_facts)
    if strict:
        check_strict(applied.report)


def settings(preset: str | None, **given: Any) -> EditConfig:
    """The configuration: the preset's or the defaults, with every option that was given (is not None).

    Raises ConfigError for options that are wrong on any model.
    """
    from hubedit.config import EditConfig
    from hubedit.edit.balance import alphas, parse_layers
    from hubedit.presets import preset as preset_of

    config = preset_of(preset) if preset is not None else EditConfig()
    chosen = {name: value for name, value in given.items() if value is not None}
    budgets = [name for name in ("drift_mlp", "drift_attention") if name in chosen]
    if budgets and chosen.get("lam"):
        raise ConfigError("--lam replaces the drift budgets, so they exclude each other", "give one of them")
    if (budgets or chosen.get("lam")) and chosen.get("search"):
        raise ConfigError("--search tries budgets of its own", "leave out --search, or the fixed budgets")
    if budgets or chosen.get("lam"):
        chosen["search"] = False
    if budgets or chosen.get("search"):
        chosen["lam"] = 0.0
    stats: dict[str, Any] = {n: chosen.pop(n) for n in ("corpus", "tokens") if n in chosen}
    if "seed" in chosen:
        stats["seed"] = chosen["seed"]
        config = replace(config, trace=replace(config.trace, seed=chosen["seed"]))
    config = replace(config, stats=replace(config.stats, **stats), **chosen)
    # told before a model is downloaded and loaded
    alphas([0.0], [0.0], [0], config.alpha)
    if config.layers != "auto":
        parse_layers(config.layers, num_layers=10**9)
    return config


def words(context: Context) -> list[str]:
    """The command line again, from the options that were given: the same however hubedit was started."""
    line: list[str] = context.command_path.split()
    for parameter in context.command.params:
        source = context.get_parameter_source(str(parameter.name))
        if source is None or source.name != "COMMANDLINE":
            continue
        value = context.params[str(parameter.name)]
        if parameter.param_type_name == "argument":
            line.append(str(value))
        elif isinstance(value, bool):
            line.append(parameter.opts[0] if value else (parameter.secondary_opts or parameter.opts)[0])
        else:
            line += [parameter.opts[0], str(value.value if isinstance(value, StrEnum) else value)]
    return line


def _plan(
    sink: Output,
    model: str,
    loaded: LoadedFacts,
    source: str,
    config: EditConfig,
    target: Path,
    force: bool,
    device: str,
    dtype: str,
    trust: bool,
) -> None:
    """Prints what would be done."""
    from hubedit.cli.applied import size, table_of
    from hubedit.pipeline import check_config, check_facts, check_free
    from hubedit.plan import plan, skeleton

    em = skeleton(model, trust_remote_code=trust)
    check_facts(em, loaded.facts, source)
    check_config(em, config)
    check_free(target, force)
    made = plan(em, loaded.facts, config, device=device, dtype=dtype)
    least = "" if made.layers else "at most "
    chosen = ", ".join(map(str, made.layers)) or f"2 to {made.most_layers} of {made.num_layers}, by the trace"
    rows = [
        ("model", f"{made.model}: {made.family}, {made.parameters:,} parameters, {made.num_layers} layers"),
        ("runs on", f"{made.device}, {made.dtype}"),
        ("facts", f"{made.facts:,} from {source}"),
        ("layers", chosen),
        ("alpha", made.alpha if made.alpha not in ("auto", "per-layer") else f"{made.alpha}, by the trace"),
        ("edited weights", f"{least}{made.sites}"),
        ("tracing", f"{made.trace_runs:,} runs of a prompt" if made.trace_runs else "not needed"),
        ("statistics", f"{made.statistics_tokens:,} tokens of {config.stats.corpus}"),
        ("optimisation", f"about {made.target_tokens:,} tokens through the upper layers"),
        ("memory", f"about {size(made.memory)}"),
        ("patch", f"{least}{size(made.patch_size)} at rank {made.rank}, in {target}"),
    ]
    value = {"dry_run": True, "out": target, "plan": made, "config": config}
    sink.data(value, human=lambda: table_of(rows), brief=str(target))
    sink.note("nothing was computed or written: leave out --dry-run to do it")
