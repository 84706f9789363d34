"""Targets with 1 to 1,000 facts, and with the model's size.

python -m tests.benchmarks.scaling [--facts 1 10 100] [--shapes pico small] [--steps 5]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from hubedit.config import TargetConfig
from hubedit.edit.targets.optimise import optimise
from tests.benchmarks.shapes import SHAPES, model, parser, rows, tell, timed


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints seconds by facts and shape; ends with 1 where many facts cost more a fact than one alone."""
    options = parser(__doc__)
    options.add_argument("--facts", type=int, nargs="+", default=[1, 10, 100])
    options.add_argument("--shapes", nargs="+", choices=SHAPES)
    options.add_argument("--steps", type=int, default=5)
    args = options.parse_args(arguments)
    config = TargetConfig(steps=args.steps, loss=0.0)
    table: list[list[object]] = [["shape", "facts", "s", "s a fact", "facts/s"]]
    worse = False
    for shape in args.shapes or [args.shape]:
        em = model(shape, args.device, args.dtype)
        layer = em.num_layers * 8 // 28
        optimise(em, rows(em, 1), 1, layer, config)
        costs = []
        for facts in args.facts:
            made = rows(em, facts)
            with timed(args.device) as seconds:
                optimise(em, made, facts, layer, config)
                taken = seconds()
            costs.append(taken / facts)
            table.append([shape, facts, taken, taken / facts, facts / taken])
        worse = worse or costs[-1] > 1.2 * costs[0]
    names = ("shape", "facts", "seconds")
    tell(
        args, table, {"runs": [dict(zip(names, row, strict=False)) for row in table[1:]], "steps": args.steps}
    )
    return int(worse)


if __name__ == "__main__":
    sys.exit(main())
