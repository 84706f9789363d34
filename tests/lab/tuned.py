"""The published methods with settings chosen for a model by trials, then what is reported.

    python -m tests.lab.tuned MODEL --out OUT [--rates 0.5,2,8] [--methods memit,ft,...] [--edits 50]
        [--seeds 0,1,2]

MODEL has the records of `tests.lab.known`. Twelve trials for each method (six for R-ROME, which edits one
fact after another) edit the first 20 of the tuning records at once. Of each method the trial with the best
harmonic mean of success, rephrasings and neighbourhood is then measured on reporting records, beside the
default; bystanders decide between equals. `--rates`: the learning rates of the closed forms' targets,
absolute as published, so that a longer residual stream needs larger ones. OUT/trials and OUT/tuned are those
of `hubedit bench`; a killed run goes on where it stopped.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from hubedit.bench.configuration import Bench, parse
from hubedit.bench.results import Results
from hubedit.bench.run import Machine, run
from hubedit.bench.write import write
from hubedit.cache import Cache
from tests.lab.sequence import Told

METHODS = ("memit", "intattn", "alphaedit", "emmet", "r-rome", "ft", "lora", "ultraedit")
Run = Mapping[str, Any]
TRIAL_EDITS = 20
# a factor of about 2 where UltraEdit's success begins on two models, and ten elsewhere
_STEPS = (1e-6, 1e-5, 1e-4, 2e-4, 3e-4, 5e-4, 7e-4, 0.001, 0.002, 0.003, 0.005, 0.01)


def trials(method: str, layers: int, rates: Sequence[float]) -> list[Run]:
    """The runs that a method is tried with, on a model of so many layers: twelve, and six of R-ROME, which
    edits one fact after another."""
    early, middle = str(layers // 6), str(-(-2 * layers // 5))
    grids: dict[str, dict[str, Sequence[Any]]] = {
        "memit": {"targets.step": rates, "lam": (15000, 1500, 150, 15)},
        "intattn": {"targets.step": rates, "lam": (15000, 1500, 150, 15)},
        "alphaedit": {"targets.step": rates, "null_space": ("0.02", "1%"), "l2": (10, 1)},
        "emmet": {"targets.step": rates, "lam": (1, 100, 1000, 10000)},
        "r-rome": {"targets.step": rates, "layers": ("auto", early)},
        "ft": {"targets.step": (0.0005, 0.001, 0.002, 0.005), "layers": ("auto", early, middle)},
        "lora": {"targets.step": (0.0002, 0.0005, 0.001, 0.005), "targets.steps": (10, 30, 70)},
        "ultraedit": {"targets.step": _STEPS},
    }
    grid = grids[method]
    runs: list[Run] = []
    for values in product(*grid.values()):
        given = dict(zip(grid, values, strict=True))
        label = f"{method} {', '.join(f'{name} {value}' for name, value in given.items())}"
        runs.append({"method": method, "label": label, "set": given})
    return runs


def best(rows: Sequence[Mapping[str, Any]], runs: Sequence[Run]) -> list[Run]:
    """Of each method the run whose results are the best; none where all its trials failed. `rows`: of
    results.jsonl."""

    def merit(row: Mapping[str, Any]) -> tuple[float, float]:
        mean, others = (row["metrics"][f"answers/{n}"]["after"] for n in ("harmonic_mean", "bystanders"))
        return mean, others

    by_label = {run["label"]: run for run in runs}
    first: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        method = row["cell"]["method"]
        if "metrics" in row and (method not in first or merit(row) > merit(first[method])):
            first[method] = row
    return [by_label[row["cell"]["label"]] for row in first.values()]


def bench(model: Path, runs: Sequence[Run], records: str, edits: int, seeds: Sequence[int]) -> Bench:
    """The benchmark of some runs on records of `tests.lab.known`."""
    measure = {"fluency": 0, "text": "{model}/known/text.txt", "bystanders": "{model}/known/bystanders.jsonl"}
    return parse(
        {
            "title": f"{len(runs)} settings on {records} records",
            "tables": ["methods"],
            "edits": [edits],
            "seeds": list(seeds),
            "sample": "first",
            "models": [{"ref": str(model)}],
            "data": [{"name": "CounterFact", "source": f"{{model}}/known/counterfact-{records}.jsonl"}],
            "runs": list(runs),
            "measure": measure,
        },
        records,
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rates", default="0.5,2,8")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--edits", type=int, default=50)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--cache", type=Path)
    args = parser.parse_args()
    layers = AutoConfig.from_pretrained(args.model).get_text_config().num_hidden_layers
    rates = [float(rate) for rate in args.rates.split(",")]
    tried = [run for method in args.methods.split(",") for run in trials(method, layers, rates)]
    machine = Machine(cache=Cache(args.cache) if args.cache else None, chat="off")
    own = bench(args.model, tried, "tuning", TRIAL_EDITS, [0])
    done = run(own, args.out / "trials", machine=machine, progress=Told())
    found = Results(args.out / "trials").read().rows
    rows = [row for row in found if row["key"] in done.keys]  # OUT may hold those of another model
    chosen = [{"method": "joint", "label": "hubedit default"}, *best(rows, tried)]
    plan = bench(args.model, chosen, "reporting-{seed}", args.edits, [int(n) for n in args.seeds.split(",")])
    told = run(plan, args.out / "tuned", machine=machine, progress=Told())
    for problem in (*done.problems, *told.problems, *write(plan, args.out / "tuned", told.keys).problems):
        print(problem)


if __name__ == "__main__":
    main()
