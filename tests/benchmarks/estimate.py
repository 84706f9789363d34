"""What `apply` says that it will take, against what it takes: seconds and memory, by stage.

    python -m tests.benchmarks.estimate MODEL [--facts 1 10 50] [--data FILE] [--cache DIR]

Each number of facts once with an empty cache, or with that of `--cache`, and once with the statistics that
the first run has left. Printed are the estimate, the wall time, the time that this process computed, by its
threads, and the largest memory of the process; on a busy machine the wall time says little. Ends with 1 where
an estimate of the time is within a factor of two of neither.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from hubedit.cache import Cache
from hubedit.config import EditConfig
from hubedit.cost import estimate
from hubedit.environment import peak_memory
from hubedit.facts import Fact, load_facts
from hubedit.model.editable import EditableModel
from hubedit.model.instruct import choose
from hubedit.model.load import load
from hubedit.model.memory import forget_peak
from hubedit.pipeline import apply_facts
from tests.benchmarks.profile import FACTS
from tests.benchmarks.shapes import folder, parser


def compared(em: EditableModel, facts: Sequence[Fact], cache: Path, out: Path) -> dict[str, Any]:
    """One estimate and one edit."""
    # an edit that damages the model takes as long as one that does not
    config = EditConfig(collapse="tell")
    said = estimate(em, facts, config, Cache(cache))
    forget_peak(em.device)
    world, own = time.perf_counter(), time.process_time()
    apply_facts(em, facts, config, out=out, cache=Cache(cache))
    world, own = time.perf_counter() - world, time.process_time() - own
    threads = torch.get_num_threads() if em.device.type == "cpu" else 1
    ratios = [said.total / seconds for seconds in (world, own / threads)]
    found = peak_memory(em.device)
    return {
        "facts": len(facts),
        "estimate": said.total,
        "wall": world,
        "computed": own / threads,
        "ratio": min(ratios, key=lambda ratio: max(ratio, 1 / ratio)),
        "memory_estimate": said.memory,
        "memory": found.get("device", found.get("process", 0)),
        "stages": dict(said.seconds),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a table and a line of JSON."""
    options: argparse.ArgumentParser = parser(__doc__)
    options.add_argument("model")
    options.add_argument("--facts", type=int, nargs="+", default=[1, 10, 50])
    options.add_argument("--data", type=Path, default=FACTS)
    options.add_argument("--cache", type=Path, help="statistics and text that are there")
    args = options.parse_args(arguments)
    loaded = load_facts(args.data).facts
    em = load(args.model, device=args.device, dtype=args.dtype or "auto")
    em = replace(em, chat=choose(em, "auto", "", None)[0])
    runs = []
    with folder() as place:
        for count in args.facts:
            cache = Path(place) / f"cache-{count}"
            if args.cache is not None:
                shutil.copytree(args.cache, cache)
            for name in ("first", "cached"):
                shutil.rmtree(cache / "targets", ignore_errors=True)  # else nothing of the edit is left
                row = {"run": name, **compared(em, loaded[:count], cache, Path(place) / f"{name}-{count}")}
                runs.append(row)
                size = f"{row['memory_estimate'] / 1e9:.1f} GB said, {row['memory'] / 1e9:.1f} GB taken"
                times = ", ".join(f"{row[key]:.0f} s {key}" for key in ("estimate", "wall", "computed"))
                print(f"{count} facts, {name}: {times}, ratio {row['ratio']:.2f}; {size}", flush=True)
    line = json.dumps({"model": args.model, "dtype": str(em.dtype), "runs": runs})
    print(line)
    if args.json:
        args.json.write_text(line + "\n", encoding="utf-8")
    return int(any(not 0.5 <= row["ratio"] <= 2 for row in runs))


if __name__ == "__main__":
    sys.exit(main())
