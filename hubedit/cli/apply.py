"""Edit facts into a model: a PEFT adapter, with every prompt answered before and after."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Context, Option

from hubedit.cli.chat import Chat, ChatOption, SystemOption, with_chat
from hubedit.cli.choices import Method, Prefer
from hubedit.cli.command_line import words
from hubedit.cli.facts import Conflict, Format
from hubedit.cli.output import Output
from hubedit.cli.settings import check_preset, chosen_on, parse_rank, settings, short_text
from hubedit.cli.wanted import check_again, check_alone, failed_of, read_wanted


def apply(
    context: Context,
    model: Annotated[str, Option("--model", "-m", help="A folder or repo[@revision].")],
    facts: Annotated[
        Path | None, Argument(metavar="FACTS", help="A facts file: JSONL, JSON or CSV.", show_default=False)
    ] = None,
    fact: Annotated[
        list[str] | None,
        Option(
            "--fact",
            metavar="'PROMPT -> TARGET'",
            help="A fact in place of a file, or several; [square brackets] mark the subject where no name in "
            "the prompt is it.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        Option("--out", "-o", help="The patch's folder (default: NAME-patch here, for NAME.jsonl)."),
    ] = None,
    from_: Annotated[
        str,
        Option(
            "--from",
            metavar="PATCH",
            help="Make this patch again, from its facts and settings, and say whether it came out the same.",
        ),
    ] = "",
    on: Annotated[
        str,
        Option("--on", metavar="PATCH", help="Edit on top of it; joint and alphaedit protect its facts."),
    ] = "",
    again: Annotated[
        bool, Option("--again", help="Of the facts of --on, edit those again that no longer hold.")
    ] = False,
    method: Annotated[
        Method | None,
        Option(
            "--method",
            help="hubedit's own, or a published one with its settings.  "
            "[default: joint; intattn with a paper's preset]",
        ),
    ] = None,
    preset: Annotated[
        str | None,
        Option(
            "--preset",
            metavar="NAME|FILE|REPO",
            help="A paper's settings (qwen2.5-7b, mistral-7b, llama-3-8b), or those of hubedit tune.",
        ),
    ] = None,
    fast: Annotated[
        bool,
        Option(
            "--fast",
            help="Fewer layers, forms, rounds and tokens, and a short report; options that are given "
            "override it.",
        ),
    ] = False,
    prefer: Annotated[
        Prefer | None,
        Option("--prefer", help="Whether success or what stays weighs more.  [default: balanced]"),
    ] = None,
    layers: Annotated[
        str | None, Option("--layers", help="auto (by the model's depth), 4-8 or 4,6,8.  [default: auto]")
    ] = None,
    alpha: Annotated[
        str | None,
        Option("--alpha", help="Attention's share: 0 to 1, or traced: auto, per-layer.  [default: 0]"),
    ] = None,
    lam: Annotated[
        float | None,
        Option(
            "--lam", min=0, help="Weight of what is preserved.  [default: 30 up to 50 facts; the method's]"
        ),
    ] = None,
    rank: Annotated[
        str | None,
        Option(
            "--rank",
            metavar="N|auto",
            help="Truncate to it; auto: the smallest that keeps 99 % and that readers take; 0 is exact.  "
            "[default: 0]",
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        Option("--batch-size", min=0, metavar="N", help="N facts at once, batch after batch; 0 is all."),
    ] = None,
    null_space: Annotated[
        str | None,
        Option(
            "--null-space",
            metavar="X|X%",
            help="Write only where what is preserved has eigenvalues below X, or X % of the largest.",
        ),
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
        int | None, Option("--tokens", min=0, help="Its size; 0 is 12 x the widest site.  [default: 0]")
    ] = None,
    seed: Annotated[
        int | None, Option("--seed", min=0, max=2**32 - 1, help="Of everything random.  [default: 0]")
    ] = None,
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
    chat: ChatOption = Chat.auto,
    system: SystemOption = "",
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
            metavar="REPO|PATCH|auto",
            envvar="HUBEDIT_STATS_REPO",
            help="Take statistics and traces from this repository, or the one that a patch was made with "
            "(auto: that of --on), where it has them.",
        ),
    ] = "",
    json: Annotated[bool, Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Only warnings, and the path.")] = False,
) -> None:
    """Edit facts into a model: a PEFT adapter, with every prompt answered before and after.

    By default gradient descent finds what early MLPs must write, and least squares a change that does it."""
    sink = Output(json=json, quiet=quiet)
    given: dict[str, Any] = {
        "layers": layers,
        "alpha": alpha,
        "prefer": prefer.value if prefer else None,
        "lam": lam,
        "rank": parse_rank(rank),
        "batch_size": batch_size,
        "null_space": null_space,
        "corpus": corpus,
        "tokens": tokens,
        "seed": seed,
    }
    chosen_method = method.value if method else ""
    if again:
        check_again(on, from_, dry_run)
    if from_:
        check_alone(preset, chosen_method, on, {**given, "fast": fast or None})
    else:
        config = settings(preset, chosen_method, fast, **given)
    from hubedit.hub import patch_folder
    from hubedit.model.limits import parse_memory
    from hubedit.patch import Patch
    from hubedit.patch.again import compare, settings_of
    from hubedit.patch.doubts import too_wide
    from hubedit.pipeline import check_free

    parse_memory(max_memory)
    wanted = read_wanted(facts, fact or (), from_, format.value, on_conflict.value, on if again else "")
    target = out if out is not None else Path(f"{wanted.name}-patch")
    loaded = wanted.loaded
    for notice in loaded.notices:
        sink.note(f"notice: {notice}")
    first = wanted.repeats
    if first is not None:
        config = settings_of(first, corpus or "")
    check_free(target, force)
    older = Patch.load(patch_folder(on)) if on else None
    repeated = first or (older if again else None)
    made = repeated.record if repeated is not None else None  # asked as it was asked
    if dry_run:
        from hubedit.cli.dry_run import Machine, show_plan

        machine = Machine(device, dtype, trust_remote_code, chat, system, made)
        weighs = prefer.value if prefer else None
        show_plan(
            sink,
            model,
            loaded,
            wanted.source,
            config,
            target,
            older,
            machine,
            preset,
            weighs,
            cache,
            fast,
            short=fast and tokens is None,
        )
        return

    from hubedit.cache import Cache
    from hubedit.cli.applied import show
    from hubedit.cli.push import destination, send, shared
    from hubedit.cost import estimate
    from hubedit.model.load import load
    from hubedit.parallel import hold
    from hubedit.pipeline import apply_facts, check_strict

    # a login that may not write, or a repository that is not there, is refused before the long work
    place = destination(push) if push else None
    store = shared(sink, stats_repo, cache, older) if stats_repo else Cache(cache)
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
        em = with_chat(sink, em, chat, system, made)
        check_preset(sink, preset, config, em)
        if fast and tokens is None:
            config = short_text(config, em)
        if first is not None:
            first.fits(em)
        chosen = list(loaded.facts)
        if again and older is not None:
            chosen += failed_of(em, older, chosen, progress)
        if again and not chosen:
            sink.note(f"all facts of {on} hold: nothing is written")
            return
        if not quiet:
            progress.message(f"takes {estimate(em, chosen, config, store, brief=fast).words}")
        note = chosen_on(preset, chosen, prefer or "balanced")
        applied = apply_facts(
            em,
            chosen,
            config,
            out=target,
            on=older,
            cache=store,
            progress=progress,
            source=wanted.source,
            with_facts=not no_facts,
            overwrite=force,
            command=words(context),
            notes=[note] if note else [],
            brief=fast,
        )
    if note:
        sink.warn(note)
    show(sink, applied, compare(first, applied.patch) if first is not None else None)
    if wide := too_wide(applied.patch):
        sink.warn(wide)
    if place is not None:
        send(sink, target, place, with_facts=not no_facts)
    if strict:
        check_strict(applied.report)
