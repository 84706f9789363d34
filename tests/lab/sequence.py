"""Batches of edits one after another on a real model, every method, beside the same facts at once.

    python -m tests.lab.sequence MODEL --data FOLDER --out OUT [--batches 20] [--size 25] [--draws 3]
        [--set counterfact|zsre] [--methods joint,memit,...] [--draws-only] [--records 0]

FOLDER and MODEL are those of `tests.lab.known`, which must have written MODEL/known: the bystanders and the
text there are used, and the bystanders' subjects are left out here. Writes
`known/counterfact-sequence-0.jsonl`, -1, ... (facts that the model knows, each about another subject, in an
order drawn anew for every draw; of ZsRE, whose questions small models hardly ever answer, any), then runs the
benchmark into OUT: after a fifth, two fifths, ... of the batches, in sequence and at once, with
`figures/sequence-*.png`. A killed run goes on where it stopped; a longer sequence begins as a shorter one.
`real-sequence.toml` is the same for 20 x 25, `real-sequence-10.toml` for 10 x 10.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

from hubedit.bench.plan import Bench, parse
from hubedit.bench.run import Machine, run
from hubedit.bench.write import write
from hubedit.cache import Cache
from hubedit.evaluate.records import read_records
from hubedit.facts import Fact, dump_facts, load_facts
from hubedit.model.load import load
from hubedit.progress import Silent
from tests.lab.known import FILES, candidates, known

NAMES = {"counterfact": "CounterFact", "zsre": "ZsRE"}
METHODS = ("joint", "memit", "alphaedit", "emmet", "r-rome", "lora", "ft", "ultraedit")
_POINTS = 5


def draw(facts: Sequence[Fact], count: int, seed: int, taken: Sequence[Fact] = ()) -> list[Fact]:
    """The first `count` of the facts in an order drawn by `seed`, none about a subject of `taken`. Raises
    ValueError where there are too few."""
    subjects = {fact.subject for fact in taken}
    left = [fact for fact in facts if fact.subject not in subjects]
    if len(left) < count:
        raise ValueError(f"there are {len(left)} facts, and {count} are wanted")
    random.Random(f"sequence-{seed}").shuffle(left)
    return left[:count]


def bench(
    model: Path, batches: int, size: int, draws: int, methods: Sequence[str], data: str = "counterfact"
) -> Bench:
    """The benchmark: after a fifth, two fifths, ... of the batches, in sequence and at once."""
    points = sorted({max(1, batches * n // _POINTS) for n in range(1, _POINTS + 1)} | {1})
    return parse(
        {
            "title": f"{batches} batches of {size}, one after another",
            "tables": ["batches"],
            "edits": [size * n for n in points],
            "batch_sizes": [0, size],
            "seeds": list(range(draws)),
            "sample": "first",
            "models": [{"ref": str(model)}],
            "data": [{"name": NAMES[data], "source": f"{{model}}/known/{data}-sequence-{{seed}}.jsonl"}],
            "runs": [{"method": method} for method in methods],
            "measure": {
                "fluency": 0,
                "text": "{model}/known/text.txt",
                "bystanders": "{model}/known/bystanders.jsonl",
            },
        },
        "sequence",
    )


class Told(Silent):
    """Stages on the screen, a line each."""

    def start(self, stage: str, total: int | None = None, unit: str = "") -> None:
        print(stage, flush=True)

    def finish(self, note: str = "") -> None:
        print(f"    {note}", flush=True)

    def message(self, text: str) -> None:
        print(text, flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="the folder with the public files")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--size", type=int, default=25)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--records", type=int, default=0, help="records that are asked; 0: all")
    parser.add_argument("--set", choices=NAMES, default="counterfact")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--draws-only", action="store_true")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--cache", type=Path)
    args = parser.parse_args()
    folder = args.model / "known"
    files = [folder / f"{args.set}-sequence-{seed}.jsonl" for seed in range(args.draws)]
    count = args.batches * args.size
    if not all(file.is_file() and len(load_facts(file).facts) >= count for file in files):
        found = candidates(read_records(args.data / FILES[args.set]).facts, args.records, 0)
        if args.set == "counterfact":
            found = known(load(str(args.model), device=args.device, dtype=args.dtype), found)
            print(f"{len(found)} known", flush=True)
        others = load_facts(folder / "bystanders.jsonl").facts
        for seed, file in enumerate(files):
            file.write_text(dump_facts(draw(found, count, seed, others)), encoding="utf-8")
    if args.draws_only:
        return
    plan = bench(args.model, args.batches, args.size, args.draws, args.methods.split(","), args.set)
    machine = Machine(args.device, args.dtype, Cache(args.cache) if args.cache else None)
    done = run(plan, args.out, machine=machine, progress=Told())
    for problem in (*done.problems, *write(plan, args.out, done.keys).problems):
        print(problem)


if __name__ == "__main__":
    main()
