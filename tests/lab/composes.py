"""What a lab model knows, relation by relation, and which two-hop questions it composes.

    python -m tests.lab.composes MODEL_DIR

The prompts are those of the folder's `known.jsonl`, made by `tests.lab.train`: `trained` ones, `held_out`
phrasings of facts that were taught, and `two_hop` questions whose answer was never stated about the subject.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

from tests.lab.packing import questions, share_right
from tests.lab.world import KnownFact


def facts_of(folder: Path) -> list[KnownFact]:
    """The facts of a lab model's folder."""
    found = []
    for line in (folder / "known.jsonl").read_text(encoding="utf-8").splitlines():
        r = json.loads(line)
        prompts, held_out = tuple(r["prompts"]), tuple(r["held_out"])
        found.append(KnownFact(r["subject"], r["relation"], r["answer"], prompts, held_out))
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    args = parser.parse_args()
    from hubedit.model.load import load

    em = load(str(args.model), device="cpu")
    relations: dict[str, list[KnownFact]] = defaultdict(list)
    for fact in facts_of(args.model):
        relations[fact.relation].append(fact)
    for relation, facts in relations.items():
        cells = []
        for kind in ("trained", "held_out", "two_hop"):
            asked = questions(facts, kind)
            right = share_right(em.model, em.tokenizer, asked) if asked else []
            cells.append(f"{sum(right) / len(right):6.3f} ({len(right)})" if right else "-")
        print(f"{relation:32s} " + " ".join(f"{kind:>16s}" for kind in cells), flush=True)


if __name__ == "__main__":
    main()
