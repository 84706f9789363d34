"""Where the time of an edit goes on a model, by stage: seconds, tokens, and how much of the machine it uses.

    python -m tests.benchmarks.profile MODEL [--facts 10 50] [--data FILE] [--cached] [--no-work]

Runs `apply` with its defaults and an empty cache. `tokens`: padded positions of every block's passes, by the
number of blocks, so a pass through half of the model counts half. `TFLOP`: of the matrix products, counted in
a second run (attention and gradients too); `share`: that work a second, of the speed of one large matrix
product on this machine in the type that the model is computed in. `--cached` adds a run with the first one's
cache, `--no-work` leaves the second run out. The facts are those of the bundled model, so on another one they
may fail; the work is the same.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

import hubedit
from hubedit.cache import Cache
from hubedit.config import EditConfig
from hubedit.facts import Fact, load_facts
from hubedit.model.editable import EditableModel
from hubedit.model.instruct import choose
from hubedit.model.load import load
from hubedit.pipeline import apply_facts
from hubedit.progress import Silent
from tests.benchmarks.shapes import folder, parser, throughput

FACTS = Path(hubedit.__file__).parent / "demo" / "facts.jsonl"
BETWEEN = "solves, checks, report"


@dataclass
class Stage:
    """What a stage took, summed where it comes again."""

    seconds: float = 0.0
    tokens: float = 0.0
    work: float = 0.0


class Stages(Silent):
    """Stages as the progress display has them; what lies between two of them is one more."""

    def __init__(self, work: Callable[[], float]) -> None:
        self.found: dict[str, Stage] = {}
        self.tokens = 0.0
        self._work = work
        self._name, self._began, self._before = BETWEEN, time.perf_counter(), 0.0

    def start(self, stage: str, total: int | None = None, unit: str = "") -> None:
        self.close(re.sub(r" \d+\..*", "", stage))  # "targets 3.mlp" is one of the targets

    def finish(self, note: str = "") -> None:
        self.close(BETWEEN)

    def close(self, following: str) -> None:
        """Ends what is running; what comes now is `following`."""
        now, work = time.perf_counter(), self._work()
        own = self.found.setdefault(self._name, Stage())
        own.seconds += now - self._began
        own.tokens += self.tokens
        own.work += work - self._before
        self._name, self._began, self._before, self.tokens = following, now, work, 0.0


def profiled(
    em: EditableModel, facts: Sequence[Fact], cache: Path, out: Path, *, count: bool
) -> dict[str, Stage]:
    """One edit, by stage; `count`: the work, which slows it a little."""
    counter = FlopCounterMode(display=False)
    stages = Stages(lambda: float(counter.get_total_flops()) if count else 0.0)

    def passed(_: Any, given: tuple[Any, ...], named: dict[str, Any], __: Any) -> None:
        hidden = given[0] if given else named["hidden_states"]
        stages.tokens += hidden[..., 0].numel() / em.num_layers

    blocks = [em.block(layer) for layer in range(em.num_layers)]
    handles = [block.register_forward_hook(passed, with_kwargs=True) for block in blocks]
    try:
        # an edit that damages the model takes as long as one that does not
        config = EditConfig(collapse="tell")
        if count:
            with counter:
                apply_facts(em, facts, config, out=out, cache=Cache(cache), progress=stages)
        else:
            apply_facts(em, facts, config, out=out, cache=Cache(cache), progress=stages)
    finally:
        for handle in handles:
            handle.remove()
    stages.close(BETWEEN)
    return stages.found


def report(found: dict[str, Stage], work: dict[str, Stage], speed: float) -> list[dict[str, Any]]:
    """The stages as rows, the whole last."""
    rows: list[dict[str, Any]] = []
    for name, stage in found.items():
        flops = work[name].work if name in work else 0.0
        share = flops / stage.seconds / speed if stage.seconds > 0 else 0.0
        rows.append(
            {
                "stage": name,
                "seconds": stage.seconds,
                "tokens": stage.tokens,
                "tflop": flops / 1e12,
                "share": share,
            }
        )
    total = {key: sum(row[key] for row in rows) for key in ("seconds", "tokens", "tflop")}
    return [*rows, {"stage": "all", **total, "share": 1e12 * total["tflop"] / total["seconds"] / speed}]


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a table for each number of facts, and a line of JSON."""
    options: argparse.ArgumentParser = parser(__doc__)
    options.add_argument("model")
    options.add_argument("--facts", type=int, nargs="+", default=[10, 50])
    options.add_argument("--data", type=Path, default=FACTS)
    options.add_argument("--cached", action="store_true")
    options.add_argument("--no-work", action="store_true")
    args = options.parse_args(arguments)
    loaded = load_facts(args.data).facts
    em = load(args.model, device=args.device, dtype=args.dtype or "auto")
    em = replace(em, chat=choose(em, "auto", "", None)[0])
    speeds = {kind: throughput(args.device, getattr(torch, kind)) for kind in ("float32", "bfloat16")}
    speed = speeds.get(str(em.dtype).removeprefix("torch."), speeds["float32"])
    print(", ".join(f"{kind}: {value / 1e12:.3g} TFLOP/s" for kind, value in speeds.items()))
    runs = []
    with folder() as place:
        for count in args.facts:
            facts = loaded[:count]
            own = Path(place) / str(count)
            cold = profiled(em, facts, own / "cache", own / "cold", count=False)
            work = {} if args.no_work else profiled(em, facts, own / "second", own / "work", count=True)
            named = [("cold", report(cold, work, speed))]
            if args.cached:
                kept = profiled(em, facts, own / "cache", own / "cached", count=False)
                named.append(("cached", report(kept, {}, speed)))
            for name, rows in named:
                print(f"\n{len(facts)} facts, {name}")
                print(f"{'stage':>30}  {'seconds':>8}  {'tokens':>10}  {'TFLOP':>8}  {'share':>6}")
                for row in rows:
                    figures = f"{row['seconds']:8.1f}  {row['tokens']:10,.0f}  {row['tflop']:8.3f}"
                    print(f"{row['stage']:>30}  {figures}  {100 * row['share']:5.1f}%")
                runs.append({"facts": len(facts), "run": name, "stages": rows})
    line = json.dumps({"model": args.model, "dtype": str(em.dtype), "flops": speeds, "runs": runs})
    print(f"\n{line}")
    if args.json:
        args.json.write_text(line + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
