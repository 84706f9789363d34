"""Thousands of facts through all of the default edit but the search for targets: keys, solve, report, patch.

    python -m tests.benchmarks.many MODEL [--facts 100 1000 10000] [--cache DIR]

The facts are made up, and so are the changes that they need: of random direction, each as long as one round
may make it at an average output. Keys are those of the model, of bare prompts behind every opening and as a
question; the update of each of the default's sites is solved for, brought to its rank and measured, and all
of them are written as a patch. Printed are the seconds of each, and the size of the patch beside that of the
matrices that it changes. Ends with 1 where the patch is larger than 1 + d / d_in times these in float32, or a
fact of the largest number costs more than one of the smallest. Without the statistics in `--cache` the model
first writes their text, which on a CPU takes a minute or more.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from hubedit.cache import Cache
from hubedit.config import EditConfig
from hubedit.edit.baseline import measure
from hubedit.edit.batch import EditBatch
from hubedit.edit.methods.finish import report
from hubedit.edit.methods.joint import solve
from hubedit.edit.prompts.contexts import key_rows
from hubedit.edit.result import Clock
from hubedit.edit.solve.keys import at_subject
from hubedit.facts import Fact
from hubedit.linalg import LowRank
from hubedit.model.editable import EditableModel
from hubedit.model.instruct import choose
from hubedit.model.load import load
from hubedit.model.sites import Site
from hubedit.patch import Patch, base_record
from hubedit.progress import Silent
from tests.benchmarks.shapes import facts_of, folder, parser, tell

STAGES = ("rows", "keys", "solve", "report", "patch")


def through(em: EditableModel, facts: Sequence[Fact], cache: Cache, out: Path) -> dict[str, float]:
    """Seconds by stage, bytes of the patch in `out`, and bytes in float32 of the matrices that it changes."""
    config = EditConfig()
    config = replace(config, lam=config.lam_for(len(facts)))
    quiet, clock = Silent(), Clock()
    baseline = measure(em, facts, config, cache, quiet, clock)
    batch = EditBatch(em, facts, config, baseline, cache, quiet, clock)
    seconds, start = dict.fromkeys(STAGES, 0.0), time.perf_counter()

    def lap(stage: str) -> None:
        nonlocal start
        seconds[stage] += time.perf_counter() - start
        start = time.perf_counter()

    rows = key_rows(em, facts, config.prompts)
    lap("rows")
    factors: dict[Site, LowRank] = {}
    draw = torch.Generator().manual_seed(0)
    for layer in baseline.layers:
        site = Site(layer, "mlp")
        keys = at_subject(em.with_patch(factors), rows, layer, [site]).inputs[site]
        lap("keys")
        delta = torch.nn.functional.normalize(torch.randn(len(facts), em.hidden_size, generator=draw))
        delta *= config.targets.clamp * baseline.power[site] ** 0.5
        factors[site] = solve(batch, site, keys, rows, delta)
        lap("solve")
        report(em, site, factors[site], baseline, config.lam)
        lap("report")
    named = {em.module_name(site): factor for site, factor in factors.items()}
    record = {"method": config.method, "base": base_record(em, factors)}
    Patch(named, record, str(em.path), em.commit, tuple(facts), em.family.conv1d).save(out)
    lap("patch")
    size = sum(tensor.nbytes for tensor in load_file(out / "adapter_model.safetensors").values())
    return {**seconds, "bytes": size, "dense": 4.0 * sum(em.weight(site).numel() for site in factors)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a line for each number of facts, and a line of JSON."""
    options: argparse.ArgumentParser = parser(__doc__)
    options.add_argument("model")
    options.add_argument("--facts", type=int, nargs="+", default=[100, 1000, 10000])
    options.add_argument("--cache", type=Path)
    args = options.parse_args(arguments)
    em = load(args.model, device=args.device, dtype=args.dtype or "auto")
    em = replace(em, chat=choose(em, "off", "", None)[0])
    table: list[list[object]] = [
        ["facts", *(f"{s}, s" for s in STAGES), "all, s", "s a fact", "patch / dense"]
    ]
    runs = []
    with folder() as place:
        cache = Cache(args.cache or Path(place) / "cache")
        through(em, facts_of(em, 1), cache, Path(place) / "first")  # sets things up
        for count in sorted(args.facts):
            found = through(em, facts_of(em, count), cache, Path(place) / str(count))
            whole = sum(found[stage] for stage in STAGES)
            parts = [found[stage] for stage in STAGES]
            table.append([count, *parts, whole, whole / count, found["bytes"] / found["dense"]])
            runs.append({"count": count, "all": whole, **found})
    tell(args, table, {"model": args.model, "runs": runs})
    wide = max(em.weight(Site(0, "mlp")).shape) / min(em.weight(Site(0, "mlp")).shape)
    fits = all(run["bytes"] <= (1 + 1 / wide) * 1.01 * run["dense"] for run in runs)
    costs = [run["all"] / run["count"] for run in runs]
    return int(not fits or costs[-1] > costs[0])


if __name__ == "__main__":
    sys.exit(main())
