"""A world of real benchmark records: sentences of their own true facts, for a model that is then edited.

    python -m tests.lab.real_records FILE [--edits 200] [--others 1000] [--seed 0]

FILE is a benchmark's file as `hubedit eval --dataset` reads it (CounterFact, KnowEdit's ZsRE). Some records
are edited later with their own new answers: their paraphrases are in no sentence. Of the others the
paraphrases are told as well, so that a model can learn what the wordings mean. Locality prompts with a known
answer are told too. Portability is left out: what follows from a new answer is in no record.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hubedit.evaluate.records import read_records
from hubedit.facts import Fact
from hubedit.facts.answers import mentions
from tests.lab.world import KnownFact, Statement, World

LONGEST = 200
"""Characters of a sentence; some CounterFact paraphrases carry a paragraph in front."""


def build(path: Path, edits: int = 200, others: int = 1000, seed: int = 0) -> World:
    """`edits` records that will be edited and `others` that will not, drawn by `seed`."""
    usable = _usable(read_records(path).facts)
    random.Random(f"records-{seed}").shuffle(usable)
    edited, rest = usable[:edits], usable[edits : edits + others]
    truths: dict[str, str] = {}  # prompt -> answer; what is told first stays
    for fact in (*edited, *rest):
        truths.setdefault(fact.prompt, fact.ground_truth[0])
    held_out = {prompt for fact in edited for prompt in fact.rephrase}
    facts: list[KnownFact] = []
    told: dict[str, str] = {}
    for fact in (*edited, *rest):
        later = fact in edited
        prompts = [fact.prompt, *(() if later else fact.rephrase)]
        prompts = [p for p in prompts if p not in held_out and len(p) <= LONGEST]
        told |= {p: fact.ground_truth[0] for p in prompts if p not in told}
        held = tuple(p for p in fact.rephrase if later and len(p) <= LONGEST)
        relation = "{}".join(fact.template)
        facts.append(KnownFact(fact.subject, relation, fact.ground_truth[0], tuple(prompts), held))
        for probe in fact.locality:
            if probe.answers and probe.prompt not in truths and probe.prompt not in held_out:
                truths[probe.prompt] = told[probe.prompt] = probe.answers[0]
    statements = tuple(Statement.of(prompt, answer) for prompt, answer in told.items())
    name = f"records-{path.stem}-{edits}-{others}-{seed}"
    return World(name, statements, tuple(facts), tuple(_edit(n, fact, told) for n, fact in enumerate(edited)))


def _usable(facts: Sequence[Fact]) -> list[Fact]:
    """Records with an old answer, one for each subject and each prompt: edits must not contradict."""
    subjects, prompts, kept = set[str](), set[str](), []
    for fact in facts:
        if not fact.ground_truth or fact.ground_truth[0] == fact.target or len(fact.prompt) > LONGEST:
            continue
        if fact.subject not in subjects and fact.prompt not in prompts:
            subjects.add(fact.subject)
            prompts.add(fact.prompt)
            kept.append(fact)
    return kept


def _edit(number: int, fact: Fact, told: dict[str, str]) -> dict[str, Any]:
    """One edit in the form of `World.edits`; probes are prompts that the model was told the answer of."""
    local = [(p.prompt, p.answers[0]) for p in fact.locality if p.answers and p.prompt in told]
    return {
        "id": f"{fact.id or 'record'}-{number:04d}",
        "prompt": fact.prompt,
        "subject": fact.subject,
        "target": fact.target,
        "ground_truth": fact.ground_truth[0],
        "rephrase": [p for p in fact.rephrase if len(p) <= LONGEST],
        "locality": [
            {
                "type": "same_subject" if mentions(prompt, fact.subject) else "neighbourhood",
                "prompt": prompt,
                "answer": answer,
            }
            for prompt, answer in local
        ],
        "portability": [],
    }


def main() -> None:
    """Prints how much there is to learn and to edit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--edits", type=int, default=200)
    parser.add_argument("--others", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    world = build(args.file, args.edits, args.others, args.seed)
    words = sum(len(statement.text.split()) for statement in world.statements)
    probes = sum(len(edit["locality"]) for edit in world.edits)
    held = sum(len(edit["rephrase"]) for edit in world.edits)
    print(f"{world.name}: {len(world.statements)} statements, {words} words, {len(world.facts)} facts")
    print(f"{len(world.edits)} edits with {held} held-out paraphrases and {probes} locality prompts")


if __name__ == "__main__":
    main()
