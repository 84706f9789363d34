"""Benchmark records as facts files: to choose settings on, to report on, and as bystanders.

    python -m tests.lab.known MODEL --data FOLDER [--out FOLDER] [--records 0] [--seed 0]

FOLDER of `--data` holds the public files (`FILES`, `TEXTS`); MODEL is a checkpoint, such as
`tests.lab.pretrained` makes. Of CounterFact only the records are taken that the model knows: its greedy
answer begins with the old one, and an edit changes what it believes. The questions of KnowEdit's data sets
these models hardly ever answer, so those are taken as they are. `--out` (default: `known` in the model's
folder) gets, of each data set, one record a subject,

- NAME-tuning.jsonl: to choose settings on;
- NAME-reporting-0.jsonl, -1, -2: draws to report on, of which draws of 10 and 20 are the first ones. No
  record stands in two of these files;

`bystanders.jsonl`, known facts of CounterFact whose subjects are in none of them; and `text.txt`, real text
for perplexity.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hubedit.evaluate.records import read_records
from hubedit.facts import Fact, dump_facts
from hubedit.facts.answers import gives
from hubedit.model.editable import EditableModel
from hubedit.model.generate import greedy
from hubedit.model.load import load

FILES = {
    "counterfact": "easyedit_counterfact-edit.json",
    "zsre": "knowedit_ZsRE-test-all.json",
    "wiki_counterfact": "knowedit_wiki_counterfact_train_cf.json",
}
TEXTS = "ME-PPL_50.json"
"""Its second half is what perplexity is measured on; the first one may be used to choose settings."""
DRAWS = 3
FACTS = 50
"""In a file for choosing or reporting, where the model knows enough."""
BYSTANDERS = 100
LONGEST = 400
"""Characters of a prompt: a few records carry a page."""
_NEW = 6
_KNOWN = "counterfact"


@dataclass(frozen=True)
class Split:
    """Disjoint sets of facts; `rest`: in none of the others."""

    tuning: tuple[Fact, ...]
    reporting: tuple[tuple[Fact, ...], ...]
    rest: tuple[Fact, ...]


def known(em: EditableModel, facts: Sequence[Fact]) -> list[Fact]:
    """The facts whose old answer the model gives, in their order."""
    asked = [fact for fact in facts if fact.ground_truth and len(fact.prompt) <= LONGEST]
    said = greedy(em, [fact.prompt for fact in asked], _NEW)
    return [fact for fact, text in zip(asked, said, strict=True) if gives(text, fact.ground_truth)]


def candidates(facts: Sequence[Fact], records: int, seed: int) -> list[Fact]:
    """One record for each subject, in an order drawn by `seed`, of its first `records` (0: all).

    Records whose new answer is the old one are no edits."""
    order = [fact for fact in facts if not gives(fact.target, fact.ground_truth)]
    random.Random(f"known-{seed}").shuffle(order)
    single: dict[str, Fact] = {}
    for fact in order[: records or None]:
        single.setdefault(fact.subject, fact)
    return list(single.values())


def split(facts: Sequence[Fact], draws: int = DRAWS, size: int = FACTS) -> Split:
    """Cuts facts, in their order, into one set for tuning, `draws` for reporting, and what is left.

    Where there are too few for sets of `size`, all sets and what is left get the same share.
    """
    size = min(size, len(facts) // (draws + 2))
    parts = [tuple(facts[n * size : (n + 1) * size]) for n in range(draws + 1)]
    return Split(parts[0], tuple(parts[1:]), tuple(facts[(draws + 1) * size :]))


def write(found: Mapping[str, Sequence[Fact]], out: Path) -> dict[str, int]:
    """Writes the files of every data set, and the bystanders; the number of facts by file."""
    sets = {name: split(facts) for name, facts in found.items()}
    files: dict[str, Sequence[Fact]] = {}
    for name, parts in sets.items():
        files[f"{name}-tuning"] = parts.tuning
        files |= {f"{name}-reporting-{n}": draw for n, draw in enumerate(parts.reporting)}
    edited = {fact.subject for own in files.values() for fact in own}
    if _KNOWN in sets:
        others = [fact for fact in sets[_KNOWN].rest if fact.subject not in edited]
        files["bystanders"] = others[:BYSTANDERS]
    out.mkdir(parents=True, exist_ok=True)
    for name, facts in files.items():
        (out / f"{name}.jsonl").write_text(dump_facts(facts), encoding="utf-8")
    return {name: len(facts) for name, facts in files.items()}


def texts(path: Path) -> list[str]:
    """The second half of the texts of a JSON list of objects with "Text", each on one line."""
    found = [" ".join(entry["Text"].split()) for entry in json.loads(path.read_text(encoding="utf-8"))]
    return found[len(found) // 2 :]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="the folder with the public files")
    parser.add_argument("--out", type=Path, help="default: known, in the model's folder")
    parser.add_argument("--records", type=int, default=0, help="records that are asked, of each file; 0: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="bfloat16")
    args = parser.parse_args()
    missing = [file for file in (*FILES.values(), TEXTS) if not (args.data / file).is_file()]
    if missing:
        raise SystemExit(f"{args.data} lacks {', '.join(missing)}; tests/lab/README.md says what they are")
    em = load(str(args.model), device=args.device, dtype=args.dtype)
    found = {}
    for name, file in FILES.items():
        found[name] = candidates(read_records(args.data / file).facts, args.records, args.seed)
        if name == _KNOWN:
            asked, found[name] = len(found[name]), known(em, found[name])
            print(f"{name}: {len(found[name])} of {asked} known", flush=True)
    out = args.out or args.model / "known"
    for name, count in write(found, out).items():
        print(f"{name}.jsonl: {count} facts")
    (out / "text.txt").write_text("\n".join(texts(args.data / TEXTS)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
