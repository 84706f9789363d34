"""Everything at Qwen2.5-7B's true shape with random weights, on a GPU, in one command.

    python -m tests.benchmarks.gpu [--shape qwen2.5-7b] [--facts 100] [--limit 24GiB] [--out results.json]

The other benchmarks first, then a whole edit (trace, statistics, targets, solve, verification), cold and with
its caches, with the seconds of every stage. Random weights know no facts, so what is edited are the model's
own answers, and drift budgets are fixed.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from hubedit.cache import Cache
from hubedit.config import EditConfig
from hubedit.edit.compute import compute
from hubedit.evaluate import read
from hubedit.model.editable import EditableModel
from hubedit.model.limits import limit_gpus, parse_memory
from tests.benchmarks import memory, scaling, solve, statistics, targets
from tests.benchmarks.shapes import facts_of, folder, model, parser, tell


def end_to_end(em: EditableModel, count: int, tokens: int, root: Path) -> dict[str, dict[str, float]]:
    """Seconds by stage, cold and with what the first run left in the cache."""
    last = em.num_layers * 8 // 28
    first = max(0, last - 4)
    config = EditConfig(layers=f"{first}-{last}", collapse="tell")
    config = replace(config, stats=replace(config.stats, tokens=tokens))
    found = {}
    for name in ("cold", "cached"):
        start = time.perf_counter()
        facts = facts_of(em, count)
        edit = compute(em, facts, config, cache=Cache(root))
        ended = time.perf_counter()
        patched = em.with_patch(edit.factors)
        read(patched, facts)
        done = time.perf_counter()
        found[name] = {**edit.seconds, "verification": done - ended, "all": done - start}
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints every table; ends with 1 where one of the benchmarks does."""
    options = parser(__doc__)
    options.set_defaults(shape="qwen2.5-7b")
    options.add_argument("--facts", type=int, default=100)
    options.add_argument("--tokens", type=int, default=0, help="of the statistics; 0: 10 x the widest site")
    options.add_argument("--limit", default="24GiB")
    options.add_argument("--quick", action="store_true", help="small numbers everywhere, to see that it runs")
    options.add_argument("--out", type=Path, help="all results as JSON")
    args = options.parse_args(arguments)
    limit_gpus(parse_memory(args.limit))
    quick = args.quick
    common = ["--shape", args.shape, "--device", args.device]
    common += ["--dtype", args.dtype] if args.dtype else []
    plans: list[tuple[str, Callable[[Sequence[str]], int], list[str]]] = [
        (
            "targets",
            targets.main,
            ["--facts", "3", "--plain", "1", "--steps", "2", "--least", "0"]
            if quick
            else ["--facts", str(args.facts)],
        ),
        ("statistics", statistics.main, ["--tokens", "256"] if quick else ["--tokens", "50000"]),
        ("solve", solve.main, ["--facts", "4"] if quick else ["--facts", "100", "1000", "10000"]),
        (
            "memory",
            memory.main,
            ["--facts", "2", "--steps", "1", "--tokens", "600"] if quick else ["--facts", str(args.facts)],
        ),
        (
            "scaling",
            scaling.main,
            ["--facts", "1", "--steps", "1"] if quick else ["--facts", "1", "10", "100", "1000"],
        ),
    ]
    results: dict[str, object] = {}
    failed = []
    with folder() as place:
        for name, run, more in plans:
            print(f"\n== {name}")
            file = Path(place) / f"{name}.json"
            if run([*common, *more, "--json", str(file)]):
                failed.append(name)
            results[name] = json.loads(file.read_text(encoding="utf-8"))
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        print("\n== a whole edit")
        em = model(args.shape, args.device, args.dtype)
        stages = end_to_end(em, args.facts, args.tokens, Path(place) / "cache")
    table: list[list[object]] = [["seconds", *stages["cold"]]]
    table += [[name, *laps.values()] for name, laps in stages.items()]
    tell(args, table, {"facts": args.facts, "stages": stages})
    if args.out:
        args.out.write_text(json.dumps({**results, "edit": stages}, indent=2) + "\n", encoding="utf-8")
    if failed:
        print(f"not as wanted: {', '.join(failed)}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
