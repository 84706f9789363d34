"""Second moments: seconds a site and tokens, and the error of the sums against float64.

    python -m tests.benchmarks.statistics [--shape small] [--tokens 20000]

One pass for all sites of the five layers that are edited, stopping after the last of them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch

from hubedit.cache import Cache
from hubedit.config import StatsConfig
from hubedit.edit.statistics.second_moments import _sums
from hubedit.linalg import SecondMoment
from hubedit.model.sites import Site
from hubedit.parallel import Share
from tests.benchmarks.shapes import folder, model, parser, tell, timed


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints tokens a second and the relative error of the sums; ends with 1 where that exceeds 1e-5."""
    options = parser(__doc__)
    options.add_argument("--tokens", type=int, default=20000)
    args = options.parse_args(arguments)
    em = model(args.shape, args.device, args.dtype)
    last = em.num_layers * 8 // 28
    layers = range(max(0, last - 4), last + 1)
    sites = [Site(n, kind) for n in layers for kind in ("attention", "mlp")]
    length = 128
    rows = torch.randint(1, len(em.tokenizer) - 1, (max(1, args.tokens // length), length)).tolist()
    with folder() as place:
        _sums(em, Share(), sites, rows[:1], Cache().root.parent / place, {"warm": 1})
        with timed(args.device) as seconds:
            _sums(em, Share(), sites, rows, Cache().root.parent / place, {"run": 1})
            taken = seconds()
    errors = {str(d).removeprefix("torch."): _error(em.d_in(sites[-1]), d, args.device) for d in _KINDS}
    worst = max(errors.values())
    tokens = len(rows) * length
    table: list[list[object]] = [
        ["sites", "layers", "tokens", "s", "tokens/s", "s a site", *(f"error {k} in" for k in errors)],
        [len(sites), len(layers), tokens, taken, tokens / taken, taken / len(sites), *errors.values()],
    ]
    tell(args, table, {"tokens": tokens, "seconds": taken, "sites": len(sites), "errors": errors})
    needed = StatsConfig().tokens or 10 * max(em.d_in(s) for s in sites)
    print(f"an edit reads {needed} tokens here: about {needed * taken / tokens:.1f} s")
    return int(worst > 1e-5)


_KINDS = (torch.float32, torch.bfloat16)


def _error(width: int, kind: torch.dtype, device: str) -> float:
    """Relative error (Frobenius) of the sum over 4 batches of 1,024 rows, against all in float64."""
    width = min(width, 2048)
    scale = torch.logspace(0, -3, width, device=device)
    batches = [(torch.randn(1024, width, device=device) * scale).to(kind) for _ in range(4)]
    total = SecondMoment(width, device)
    exact = torch.zeros(width, width, dtype=torch.float64, device=device)
    for x in batches:
        total.update(x)
        exact += x.double().T @ x.double()
    return float((total.state()[0] - exact).norm() / exact.norm())


if __name__ == "__main__":
    sys.exit(main())
