"""What an edit would do, for --dry-run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hubedit.cli.output import Output

if TYPE_CHECKING:
    from hubedit.config import EditConfig
    from hubedit.facts import LoadedFacts


def show_plan(
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
    from hubedit.presets import METHODS

    em = skeleton(model, trust_remote_code=trust)
    check_facts(em, loaded.facts, source)
    check_config(em, config)
    check_free(target, force)
    made = plan(em, loaded.facts, config, device=device, dtype=dtype)
    least = "" if made.layers else "at most "
    several = f"at most {made.most_layers}" if made.most_layers > 1 else "one"
    chosen = ", ".join(map(str, made.layers)) or f"{several} of the {made.num_layers}; the trace says which"
    share = made.alpha if made.alpha not in ("auto", "per-layer") else f"{made.alpha}, by the trace"
    wider = " (more for new names)" if config.polish and config.method == "intattn" else ""
    rows = [
        ("model", f"{made.model}: {made.family}, {made.parameters:,} parameters, {made.num_layers} layers"),
        ("runs on", f"{made.device}, {made.dtype}"),
        ("method", config.method),
        ("facts", f"{made.facts:,} from {source}"),
        ("layers", chosen),
        *([("alpha", share)] if "alpha" in METHODS[config.method].settings else []),
        ("edited weights", f"{least}{made.sites}"),
        ("tracing", f"{made.trace_runs:,} runs of a prompt" if made.trace_runs else "not needed"),
        ("statistics", f"{made.statistics_tokens:,} tokens of {config.stats.corpus}"),
        ("optimisation", f"about {made.target_tokens:,} tokens through the upper layers"),
        ("memory", f"about {size(made.memory)}, beside Python and its libraries"),
        ("patch", f"{least}{size(made.patch_size)} at rank {made.rank}{wider}, in {target}"),
    ]
    value = {"dry_run": True, "out": target, "plan": made, "config": config}
    sink.data(value, human=lambda: table_of(rows), brief=str(target))
    sink.note("nothing was computed or written: leave out --dry-run to do it")
