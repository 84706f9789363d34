"""The closed-form solve of one site at 100, 1,000 and 10,000 facts: one Cholesky factor, then Woodbury.

    python -m tests.benchmarks.solve [--width 0] [--facts 100 1000] [--device cpu]

`--width` 0 is the shape's own (18,944 at 7B: 1.2 TFLOP in float64 for the factor). Ends with 1 when the
result misses the normal equations.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch

from hubedit.linalg import KeySpace, Preserved
from tests.benchmarks.shapes import SHAPES, parser, tell, timed


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints seconds of the factor and of each batch of facts."""
    options = parser(__doc__)
    options.add_argument("--width", type=int, default=0)
    options.add_argument("--facts", type=int, nargs="+", default=[100, 1000])
    args = options.parse_args(arguments)
    hidden, inner = SHAPES[args.shape][:2]
    width = args.width or inner
    torch.manual_seed(0)
    # dense and of full rank over four decades, in a hundredth of the time that the moment of a sample takes
    common = torch.randn(width, 256, device=args.device) / 16
    moment = common @ common.T
    moment.diagonal().add_(torch.logspace(0, -4, width, device=args.device))
    del common
    with timed(args.device) as seconds:
        preserved = Preserved.of(moment, device=args.device)
        factor = seconds()
    table: list[list[object]] = [["d_in", "facts", "Cholesky s", "key space s", "solve s", "residual"]]
    runs = []
    worst, lam = 0.0, 1.0
    for facts in args.facts:
        keys = torch.randn(facts, width, device=args.device, dtype=torch.float64) * width**-0.5
        residuals = torch.randn(facts, hidden, device=args.device, dtype=torch.float64)
        with timed(args.device) as seconds:
            space = KeySpace.of(keys, preserved)
            made = seconds()
        with timed(args.device) as seconds:
            found = space.solve(residuals, lam)
            solved = seconds()
        # A (lam C + K^T K) = K, on a few rows; C from its factor
        some = found.A[:8]
        left = lam * (some @ preserved.factor) @ preserved.factor.T + (some @ keys.T) @ keys
        error = float((left - keys[:8]).norm() / keys[:8].norm())
        worst = max(worst, error)
        table.append([width, facts, factor, made, solved, error])
        runs.append({"facts": facts, "key_space": made, "solve": solved, "residual": error})
    tell(args, table, {"width": width, "cholesky": factor, "runs": runs})
    return int(not worst < 1e-6)


if __name__ == "__main__":
    sys.exit(main())
