"""Facts with a subject, with one that is found in the prompt, and with none, as a table.

    python -m tests.lab.subjects MODEL [--known FOLDER] [--facts 20]

MODEL is a checkpoint and FOLDER (default: MODEL/known) what `tests.lab.known` wrote for it: the same records
are edited with their own subjects, with the names that `hubedit.facts.find_subject` finds in their prompts,
and at the prompts' last tokens. Columns are those of `hubedit eval`, in per cent.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from hubedit.cache import Cache
from hubedit.config import EditConfig
from hubedit.edit.compute import compute
from hubedit.evaluate import compare, read
from hubedit.evaluate.bystanders import holds
from hubedit.facts import Fact, load_facts
from hubedit.facts.find_subject import name_in
from hubedit.model.load import load

SUBJECTS: dict[str, Callable[[Fact], str]] = {
    "its own": lambda fact: fact.subject,
    "found": lambda fact: name_in(fact.prompt) or fact.prompt,
    "the last token": lambda fact: fact.prompt,
}
METRICS = ("success", "generalisation", "neighbourhood")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--known", type=Path)
    parser.add_argument("--facts", type=int, default=20)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--cache", type=Path)
    args = parser.parse_args()
    em = load(str(args.model), device=args.device, dtype=args.dtype)
    folder = args.known or args.model / "known"
    facts = load_facts(folder / "counterfact-reporting-0.jsonl").facts[: args.facts]
    others = load_facts(folder / "bystanders.jsonl").facts
    before = read(em, facts)
    print(
        "| subject | "
        + " | ".join((*METRICS, "bystanders", "seconds"))
        + " |\n|---|---:|---:|---:|---:|---:|"
    )
    for name, subject in SUBJECTS.items():
        start = time.perf_counter()
        edited = [replace(fact, subject=subject(fact)) for fact in facts]
        edit = compute(em, edited, EditConfig(collapse="tell"), cache=Cache(args.cache))
        seconds = time.perf_counter() - start
        changed = em.with_patch(edit.factors)
        after, held = read(changed, facts), holds(changed, others)
        found = compare(facts, before, after).metrics
        shares = [*(found.get(metric, 0.0) for metric in METRICS), sum(held) / max(len(held), 1)]
        cells = " | ".join(f"{100 * share:.1f}" for share in shares)
        same = sum(a.subject == b.subject for a, b in zip(facts, edited, strict=True))
        print(f"| {name} ({same} of {len(facts)} the same) | {cells} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
