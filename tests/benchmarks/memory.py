"""Peak memory of an edit, stage by stage: statistics, targets and the solves of ten sites.

    python -m tests.benchmarks.memory [--shape small] [--facts 20] [--limit 24GiB]

On a GPU its allocator's peak, on a CPU the process's. `--limit` bounds the GPU as --max-memory does.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from hubedit.config import TargetConfig
from hubedit.edit.record import peak_memory
from hubedit.edit.statistics.second_moments import _sums
from hubedit.edit.targets.optimise import optimise
from hubedit.linalg import KeySpace, Preserved
from hubedit.model.limits import limit_gpus, parse_memory
from hubedit.model.memory import parked
from hubedit.model.sites import Site
from hubedit.parallel import Share
from tests.benchmarks.shapes import folder, model, parser, rows, tell


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the peak after each stage, in GiB; ends with 1 where it exceeds the limit."""
    options = parser(__doc__)
    options.add_argument("--facts", type=int, default=20)
    options.add_argument("--limit", default="")
    options.add_argument("--steps", type=int, default=3)
    args = options.parse_args(arguments)
    limits = parse_memory(args.limit)
    limit_gpus(limits)
    device = torch.device(args.device)
    peaks: dict[str, float] = {}

    def note(stage: str) -> float:
        found = peak_memory(device)
        peaks[stage] = found.get("device", found.get("process", 0)) / 2**30
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        return peaks[stage]

    em = model(args.shape, args.device, args.dtype)
    note("model")
    layer = em.num_layers * 8 // 28
    sites = [Site(n, k) for n in range(max(0, layer - 4), layer + 1) for k in ("attention", "mlp")]
    text = torch.randint(1, len(em.tokenizer) - 1, (64, 128)).tolist()
    with folder() as place:
        moments = _sums(em, Share(), sites, text, Path(place), {"run": 1})
    note("statistics")
    matrices = [moments[str(site)].float().cpu() for site in sites]
    moments.clear()
    optimise(em, rows(em, args.facts), args.facts, layer, TargetConfig(steps=args.steps, loss=0.0))
    note("targets")
    kept = []
    for matrix in matrices:
        made = Preserved.of(matrix, device=device)
        KeySpace.of(torch.randn(args.facts, len(matrix), device=device, dtype=torch.float64), made)
        kept.append(made.to(parked(made.factor.nbytes, device)))  # as `Spreader` keeps them
        del made
    note("solve of every site")
    peak = max(peaks.values())
    table: list[list[object]] = [["stage", "peak GiB"], *([stage, size] for stage, size in peaks.items())]
    tell(args, table, {"facts": args.facts, "peak_gib": peaks})
    return int(bool(limits) and peak > max(limits.values()) / 2**30)


if __name__ == "__main__":
    sys.exit(main())
