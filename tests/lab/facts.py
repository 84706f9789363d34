"""A lab model's edits as a plain facts file, for `hubedit bench` and `hubedit apply`.

    python -m tests.lab.facts MODEL_DIR [--out facts.jsonl]

Only edits whose true fact the model knows are taken, with the locality probes that it answers rightly.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from hubedit.facts import Fact, dump_facts
from hubedit.model.load import load
from tests.lab.experiment import edits_of, known


def write_facts(model: Path, out: Path, device: str = "auto") -> list[Fact]:
    """Writes the facts of a lab model's folder to `out` and returns them."""
    facts = known(load(str(model), device=device), edits_of(model))
    out.write_text(dump_facts(facts), encoding="utf-8")
    return facts


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--out", type=Path, help="default: facts.jsonl in the model's folder")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    out = args.out or args.model / "facts.jsonl"
    total, facts = len(edits_of(args.model)), write_facts(args.model, out, args.device)
    probes = sum(len(fact.locality) for fact in facts)
    print(f"{out}: {len(facts)} of {total} edits, {probes} locality probes")


if __name__ == "__main__":
    main()
