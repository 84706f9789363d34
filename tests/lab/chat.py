"""Facts edited in a chat template against the same facts edited without it, as a table.

    python -m tests.lab.chat MODEL --data FOLDER [--facts 10] [--records 2000] [--out FOLDER]

MODEL is an instruction-tuned checkpoint such as `tests.lab.pretrained` makes, FOLDER holds CounterFact as for
`tests.lab.known`. Edited are records that the model answers rightly in its template; half of what it knows is
kept as bystanders. What it knows is written to `chat-known.jsonl` in `--out` (default: MODEL/known) and read
from there the next time, since asking thousands of records takes longer than an edit.

Every row is read in the template: success by form, by the whole answer that a text begins with; neighbours
whose first word stays, and bystanders that keep their true answer, in the template.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hubedit.cache import Cache
from hubedit.config import EditConfig
from hubedit.edit.compute import compute
from hubedit.evaluate.bystanders import holds
from hubedit.evaluate.forms import form_values
from hubedit.evaluate.reading import Reading, read
from hubedit.evaluate.records import read_records
from hubedit.facts import Fact, dump_facts, load_facts
from hubedit.linalg import LowRank
from hubedit.model.chat import chat_of
from hubedit.model.editable import EditableModel
from hubedit.model.forms import forms_of
from hubedit.model.load import load
from hubedit.model.sites import Site
from tests.lab.known import FILES, LONGEST, candidates

_PART = 50
NEIGHBOURS = 3
"""Of each fact: ten, as CounterFact has them, would take most of the time."""
COLUMNS = ("chat/success", "chat/exact", "question/success", "instruction/success", "bare/success")


def known_in_chat(em: EditableModel, facts: Sequence[Fact], enough: int) -> list[Fact]:
    """The facts whose old answer the model gives in its template, at most `enough`, in their order."""
    asked = [fact for fact in facts if fact.ground_truth and len(fact.prompt) <= LONGEST]
    found: list[Fact] = []
    for at in range(0, len(asked), _PART):
        part = asked[at : at + _PART]
        found += [fact for fact, right in zip(part, holds(em, part), strict=True) if right]
        print(f"known: {len(found)} of {at + len(part)}", flush=True)
        if len(found) >= enough:
            break
    return found[:enough]


def readings(em: EditableModel, facts: Sequence[Fact], *, in_context: bool = False) -> dict[str, Reading]:
    """The facts in every form; their neighbours in the template alone."""
    return {
        form: read(em, facts, probes=form == "chat", in_context=in_context, form=form, score=False)
        for form in forms_of(em)
    }


def row(
    em: EditableModel,
    facts: Sequence[Fact],
    others: Sequence[Fact],
    before: Mapping[str, Reading],
    *,
    in_context: bool = False,
    factors: Mapping[Site, LowRank] | None = None,
) -> dict[str, float]:
    """The figures of one row, in per cent."""
    changed = em.with_patch(factors or {})
    after, held = readings(changed, facts, in_context=in_context), holds(changed, others)
    values = form_values(facts, after, before)
    found = {name: _mean(values[name]) for name in (*COLUMNS, "chat/neighbourhood") if name in values}
    return found | {"bystanders": 100 * sum(held) / max(len(held), 1)}


def _mean(groups: Sequence[Sequence[float]]) -> float:
    flat = [value for group in groups for value in group]
    return 100 * sum(flat) / max(len(flat), 1)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="the folder with the public files")
    parser.add_argument("--facts", type=int, default=10)
    parser.add_argument("--records", type=int, default=2000, help="records that are asked at most")
    parser.add_argument("--out", type=Path, help="default: known, in the model's folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--cache", type=Path)
    args = parser.parse_args()
    em = load(str(args.model), device=args.device, dtype=args.dtype)
    em = replace(em, chat=chat_of(em.tokenizer))
    file = (args.out or args.model / "known") / "chat-known.jsonl"
    if not file.is_file():
        pool = candidates(read_records(args.data / FILES["counterfact"]).facts, args.records, args.seed)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dump_facts(known_in_chat(em, pool, 2 * args.facts)), encoding="utf-8")
    known = load_facts(file).facts
    size = min(args.facts, len(known) // 2)
    facts = [replace(fact, locality=fact.locality[:NEIGHBOURS]) for fact in known[:size]]
    others = [replace(fact, rephrase=(), locality=(), portability=()) for fact in known[size:]]
    print(f"{len(facts)} facts, {len(others)} bystanders, seed {args.seed}")
    before = readings(em, facts)
    rows = {
        "unedited": (row(em, facts, others, before), 0.0),
        "the fact in front": (row(em, facts, others, before, in_context=True), 0.0),
    }
    for name, chat in (("edited with --chat", em.chat), ("edited without", None)):
        start = time.perf_counter()
        edit = compute(replace(em, chat=chat), facts, EditConfig(), cache=Cache(args.cache))
        seconds = time.perf_counter() - start
        rows[name] = row(em, facts, others, before, factors=edit.factors), seconds
        print(f"{name}: perplexity {edit.perplexity_before:.1f} -> {edit.perplexity_after:.1f}", flush=True)
    heads = (*COLUMNS, "chat/neighbourhood", "bystanders")
    print("| | " + " | ".join(heads) + " | seconds |")
    print("|---|" + "---:|" * (len(heads) + 1))
    for name, (found, seconds) in rows.items():
        cells = (f"{found[head]:.1f}" if head in found else "" for head in heads)
        print(f"| {name} | " + " | ".join(cells) + f" | {seconds:.0f} |")


if __name__ == "__main__":
    main()
