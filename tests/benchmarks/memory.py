"""Peak memory of `apply` with its defaults, stage by stage: reading, text, statistics, edit, checks, card.

    python -m tests.benchmarks.memory [--shape small | --model MODEL [--data FILE]] [--facts 20]
        [--limit 24GiB]

With `--model` the facts of `--data`, the bundled model's own by default. On a GPU its allocator's peak, on a
CPU the process's. `--limit` bounds the GPU as --max-memory does. `--tokens` of statistics and `--steps` of
the descent are few: how many there are does not change the peak.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from hubedit.cache import Cache
from hubedit.config import EditConfig
from hubedit.environment import peak_memory
from hubedit.facts import load_facts
from hubedit.model.instruct import choose
from hubedit.model.limits import limit_gpus, parse_memory
from hubedit.model.load import load
from hubedit.model.memory import forget_peak
from hubedit.pipeline import apply_facts
from hubedit.progress import Silent
from tests.benchmarks.profile import FACTS
from tests.benchmarks.shapes import facts_of, folder, model, parser, tell

BETWEEN = "solves and checks"


class Peaks(Silent):
    """The peak in GiB of every stage that the progress display has; what lies between two is one more."""

    def __init__(self, device: torch.device) -> None:
        self.found: dict[str, float] = {}
        self._device, self._name = device, "model"

    def start(self, stage: str, total: int | None = None, unit: str = "") -> None:
        self.close(stage)

    def finish(self, note: str = "") -> None:
        self.close(BETWEEN)

    def close(self, following: str) -> None:
        """Ends what is running; what comes now is `following`."""
        found = peak_memory(self._device)
        peak = found.get("device", found.get("process", 0)) / 2**30
        self.found[self._name] = max(peak, self.found.get(self._name, 0.0))
        forget_peak(self._device)
        self._name = following


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the peak of each stage, in GiB; ends with 1 where it exceeds the limit."""
    options = parser(__doc__)
    options.add_argument("--model", help="a checkpoint instead of random weights")
    options.add_argument("--data", type=Path, default=FACTS, help="facts, for --model")
    options.add_argument("--facts", type=int, default=20)
    options.add_argument("--limit", default="")
    options.add_argument("--steps", type=int, default=3)
    options.add_argument("--tokens", type=int, default=20000)
    args = options.parse_args(arguments)
    limits = parse_memory(args.limit)
    limit_gpus(limits)
    peaks = Peaks(torch.device(args.device))
    if args.model:
        em = load(args.model, device=args.device, dtype=args.dtype or "auto")
        em = replace(em, chat=choose(em, "auto", "", None)[0])
        facts = load_facts(args.data).facts[: args.facts]
    else:
        em = model(args.shape, args.device, args.dtype)
        facts = tuple(facts_of(em, args.facts))
    config = EditConfig(collapse="tell")
    config = replace(
        config,
        stats=replace(config.stats, tokens=args.tokens),
        targets=replace(config.targets, steps=args.steps),
    )
    with folder() as place:
        own = Path(place)
        apply_facts(em, facts, config, out=own / "patch", cache=Cache(own / "cache"), progress=peaks)
    peaks.close("")
    peak = max(peaks.found.values())
    table: list[list[object]] = [
        ["stage", "peak GiB"],
        *([stage, size] for stage, size in peaks.found.items()),
    ]
    tell(args, table, {"model": args.model or args.shape, "facts": len(facts), "peak_gib": peaks.found})
    return int(bool(limits) and peak > max(limits.values()) / 2**30)


if __name__ == "__main__":
    sys.exit(main())
