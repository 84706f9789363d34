"""What an edit would do, for --dry-run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubedit.cli.chat import Chat, with_chat
from hubedit.cli.output import Output

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hubedit.config import EditConfig
    from hubedit.facts import LoadedFacts
    from hubedit.patch import Patch

_SHOWN = 4  # stages


@dataclass(frozen=True)
class Machine:
    """Where a model would be loaded, as for `hubedit.model.load.load`, and how it would be asked; `made`: the
    record of the patch that is made again."""

    device: str
    dtype: str
    trust_remote_code: bool
    chat: Chat
    system: str
    made: Mapping[str, Any] | None = None


def show_plan(
    sink: Output,
    model: str,
    loaded: LoadedFacts,
    source: str,
    config: EditConfig,
    target: Path,
    older: Patch | None,
    machine: Machine,
    preset: str | None,
    prefer: str | None,
    cache: Path | None,
    fast: bool,
    short: bool,
) -> None:
    """Prints what would be done. `older`: the patch that the edit would stand on; `preset`, `prefer`, `fast`:
    as they were given; `short`: the text is as long as --fast has it."""
    from hubedit.cache import Cache
    from hubedit.cli.applied import size, table_of
    from hubedit.cli.settings import check_preset, short_text
    from hubedit.cost import rough
    from hubedit.edit.checks import check_config, check_facts
    from hubedit.plan import plan, skeleton
    from hubedit.presets import METHODS

    em = skeleton(model, trust_remote_code=machine.trust_remote_code)
    em = with_chat(sink, em, machine.chat, machine.system, machine.made)
    check_facts(em, loaded.facts, source)
    check_preset(sink, preset, config, em)
    if short:
        config = short_text(config, em)
    check_config(em, config)
    own = {"device": machine.device, "dtype": machine.dtype}
    made = plan(em, loaded.facts, config, **own, cache=Cache(cache), brief=fast)
    chosen = ", ".join(map(str, made.layers)) or f"one of the {made.num_layers}; the trace says which"
    share = made.alpha if made.alpha not in ("auto", "per-layer") else f"{made.alpha}, by the trace"
    wider = " beside the older patch's" if older is not None else ""
    count, each = made.facts, config.batch_size
    rows = [
        ("model", f"{made.model}: {made.family}, {made.parameters:,} parameters, {made.num_layers} layers"),
        ("runs on", f"{made.device}, {made.dtype}"),
        ("method", config.method),
        *([("preset", preset)] if preset is not None else []),
        *([("settings", "fast")] if fast else []),
        *([("prefer", prefer)] if prefer is not None else []),
        ("facts", f"{made.facts:,} from {source}"),
        *([("batches", f"{-(-count // each)} of {each}, one after another")] if 0 < each < count else []),
        *(
            [("on top of", f"a patch of {size(older.size)} at rank {older.rank}")]
            if older is not None
            else []
        ),
        ("layers", chosen),
        *([("alpha", share)] if METHODS[config.method].balanced else []),
        ("edited weights", str(made.sites)),
        ("tracing", f"{made.trace_runs:,} runs of a prompt" if made.trace_runs else "not needed"),
        ("statistics", f"{made.statistics_tokens:,} tokens of {config.stats.corpus}"),
        ("time", f"about {rough(made.cost.total)}: {_longest(made.seconds)}"),
        ("memory", f"about {size(made.memory)}"),
        ("patch", f"{size(made.patch_size)} at rank {made.rank}{wider}, in {target}"),
    ]
    value = {"dry_run": True, "out": target, "plan": made, "config": config}
    sink.data(value, human=lambda: table_of(rows), brief=str(target))
    sink.note("nothing was edited or written: leave out --dry-run to do it")


def _longest(seconds: Mapping[str, float]) -> str:
    """The stages that take most of the time, in order: `text 55 s, targets 75 s`."""
    most = sorted(seconds.values())[-_SHOWN:]
    return ", ".join(f"{name} {one:.0f} s" for name, one in seconds.items() if one >= most[0])
