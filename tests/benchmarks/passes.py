"""How long forward passes of different sizes take: what the size of a pass on a CPU is chosen from.

    python -m tests.benchmarks.passes [--model DIR] [--tokens 8192] [--repeat 4] [--json]

Random tokens go through the model in passes of 512 to 8,192 tokens, in rows of 16 and of 48; then the facts'
own prompts, of many lengths, as `by_length` groups them. Printed are microseconds for each token that is not
padding, the best of `--repeat` runs.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence

import torch

from hubedit.demo import facts_path, model_path
from hubedit.edit.rows import Row, by_length, edit_rows
from hubedit.facts import load_facts
from hubedit.model.editable import EditableModel
from hubedit.model.hooks import run
from hubedit.model.load import load
from hubedit.model.tokens import pad

SIZES = (512, 1024, 2048, 4096, 8192)
CONTEXT = "It was the best of all the years that anybody could remember. "


def measure(em: EditableModel, rows: Sequence[Row], size: int, repeat: int) -> float:
    """Microseconds a token of `rows` in passes of `size` padded tokens."""
    parts = [pad([r.ids for r in part], em.pad_id, em.device) for part in by_length(rows, size)]
    last, best = em.num_layers - 1, float("inf")
    for _ in range(repeat):
        began = time.perf_counter()
        for batch in parts:
            run(em, batch, hidden=[last])
        best = min(best, time.perf_counter() - began)
    return best / sum(len(r.ids) for r in rows) * 1e6


@torch.no_grad()
def measured(em: EditableModel, tokens: int, repeat: int) -> dict[str, dict[int, float]]:
    """By kind of rows and size of the passes."""
    generator = torch.Generator().manual_seed(0)
    kinds: dict[str, list[Row]] = {}
    for length in (16, 48):
        ids = torch.randint(em.vocabulary, (tokens // length, length), generator=generator)
        kinds[f"rows of {length}"] = [Row(0, tuple(row), 0, ()) for row in ids.tolist()]
    kinds["prompts"] = edit_rows(em, load_facts(facts_path()).facts, [CONTEXT])
    return {kind: {size: measure(em, rows, size, repeat) for size in SIZES} for kind, rows in kinds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=str(model_path()))
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--repeat", type=int, default=4)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = measured(load(given.model, device="cpu"), given.tokens, given.repeat)
    if given.json:
        print(json.dumps(found, indent=2))
        return
    print(f"{'us a token':14}" + "".join(f"{size:>8}" for size in SIZES))
    for kind, row in found.items():
        print(f"{kind:14}" + "".join(f"{value:8.1f}" for value in row.values()))


if __name__ == "__main__":
    main()
